// The argument of every kernel, one struct for each op. Made from the contracts by `cargo xtask ptx`.
//
// A pointer for every argument, null where it is absent; the workspace; sizes, 0 where no argument has the letter;
// scalars as raw bits; pitches in storage units (words for bits, elements otherwise).
#pragma once

template <class T>
struct GemmArgs {
    const T* x;
    const T* w;
    const float* bias;
    float* y;
    float* slope;
    unsigned* work;
    unsigned r;
    unsigned i;
    unsigned o;
    unsigned x_ld;
    unsigned w_ld;
    unsigned bias_ld;
    unsigned y_ld;
    unsigned slope_ld;
};

template <class T>
struct GemmDxArgs {
    const T* dy;
    const T* w;
    float* dx;
    const float* slope;
    unsigned* work;
    unsigned r;
    unsigned o;
    unsigned i;
    unsigned dy_ld;
    unsigned w_ld;
    unsigned dx_ld;
    unsigned slope_ld;
};

template <class T>
struct GemmDwArgs {
    const T* dy;
    const T* x;
    float* dw;
    unsigned* work;
    unsigned r;
    unsigned o;
    unsigned i;
    unsigned dy_ld;
    unsigned x_ld;
    unsigned dw_ld;
};

struct BiasDwArgs {
    const float* dy;
    float* db;
    unsigned* work;
    unsigned r;
    unsigned e;
    unsigned o;
    unsigned inner;
    unsigned dy_ld;
    unsigned db_ld;
};

template <class T>
struct MaskedGemmArgs {
    const T* x;
    const T* w;
    const unsigned* mask;
    const float* bias;
    const unsigned* bias_mask;
    float* y;
    float* slope;
    unsigned* work;
    unsigned r;
    unsigned i;
    unsigned o;
    unsigned x_ld;
    unsigned w_ld;
    unsigned mask_ld;
    unsigned bias_ld;
    unsigned bias_mask_ld;
    unsigned y_ld;
    unsigned slope_ld;
};

template <class T>
struct MaskedGemmDxArgs {
    const T* dy;
    const T* w;
    const unsigned* mask;
    float* dx;
    const float* slope;
    unsigned* work;
    unsigned r;
    unsigned o;
    unsigned i;
    unsigned dy_ld;
    unsigned w_ld;
    unsigned mask_ld;
    unsigned dx_ld;
    unsigned slope_ld;
};

template <class T>
struct MaskedGemmDwArgs {
    const T* dy;
    const T* x;
    const T* w;
    const unsigned* mask;
    const float* score;
    const unsigned* candidates;
    float* dw;
    float* ds;
    unsigned* work;
    unsigned r;
    unsigned o;
    unsigned i;
    unsigned dy_ld;
    unsigned x_ld;
    unsigned w_ld;
    unsigned mask_ld;
    unsigned score_ld;
    unsigned candidates_ld;
    unsigned dw_ld;
    unsigned ds_ld;
};

struct MaskedBiasDwArgs {
    const float* dy;
    const float* bias;
    const unsigned* mask;
    const float* score;
    const unsigned* candidates;
    float* db;
    float* ds;
    unsigned* work;
    unsigned r;
    unsigned e;
    unsigned o;
    unsigned inner;
    unsigned dy_ld;
    unsigned bias_ld;
    unsigned mask_ld;
    unsigned score_ld;
    unsigned candidates_ld;
    unsigned db_ld;
    unsigned ds_ld;
};

struct PackedGemmArgs {
    const float* x;
    const unsigned* row_start;
    const unsigned short* col;
    const f16* value;
    const float* bias;
    float* y;
    unsigned* work;
    unsigned r;
    unsigned i;
    unsigned p;
    unsigned n;
    unsigned o;
    unsigned x_ld;
    unsigned row_start_ld;
    unsigned col_ld;
    unsigned value_ld;
    unsigned bias_ld;
    unsigned y_ld;
};

template <class T>
struct ConvArgs {
    const T* x;
    const Beside<T>* w;
    const unsigned* mask;
    const float* bias;
    const unsigned* bias_mask;
    float* y;
    unsigned* work;
    unsigned n;
    unsigned a;
    unsigned o;
    unsigned j;
    unsigned e;
    unsigned channels;
    unsigned height;
    unsigned width;
    unsigned kernel_h;
    unsigned kernel_w;
    unsigned stride;
    unsigned x_ld;
    unsigned w_ld;
    unsigned mask_ld;
    unsigned bias_ld;
    unsigned bias_mask_ld;
    unsigned y_ld;
};

template <class T>
struct ConvDxArgs {
    const T* dy;
    const T* w;
    const unsigned* mask;
    float* dx;
    unsigned* work;
    unsigned n;
    unsigned e;
    unsigned o;
    unsigned j;
    unsigned a;
    unsigned channels;
    unsigned height;
    unsigned width;
    unsigned kernel_h;
    unsigned kernel_w;
    unsigned stride;
    unsigned dy_ld;
    unsigned w_ld;
    unsigned mask_ld;
    unsigned dx_ld;
};

template <class T>
struct ConvDwArgs {
    const Beside<T>* dy;
    const T* x;
    const Beside<T>* w;
    const unsigned* mask;
    const float* score;
    const unsigned* candidates;
    float* dw;
    float* ds;
    unsigned* work;
    unsigned n;
    unsigned e;
    unsigned a;
    unsigned o;
    unsigned j;
    unsigned channels;
    unsigned height;
    unsigned width;
    unsigned kernel_h;
    unsigned kernel_w;
    unsigned stride;
    unsigned dy_ld;
    unsigned x_ld;
    unsigned w_ld;
    unsigned mask_ld;
    unsigned score_ld;
    unsigned candidates_ld;
    unsigned dw_ld;
    unsigned ds_ld;
};

template <class T>
struct AttentionArgs {
    const T* qkv;
    const unsigned char* valid;
    const unsigned* rng;
    float* y;
    float* stats;
    unsigned* work;
    unsigned r;
    unsigned e;
    unsigned b;
    unsigned t;
    unsigned c;
    unsigned h;
    unsigned heads;
    unsigned drop;
    unsigned call;
    unsigned qkv_ld;
    unsigned valid_ld;
    unsigned rng_ld;
    unsigned y_ld;
    unsigned stats_ld;
};

template <class T>
struct AttentionDxArgs {
    const T* qkv;
    const unsigned char* valid;
    const unsigned* rng;
    const float* y;
    const float* stats;
    const T* dy;
    float* dqkv;
    unsigned* work;
    unsigned r;
    unsigned e;
    unsigned b;
    unsigned t;
    unsigned c;
    unsigned h;
    unsigned heads;
    unsigned drop;
    unsigned call;
    unsigned qkv_ld;
    unsigned valid_ld;
    unsigned rng_ld;
    unsigned y_ld;
    unsigned stats_ld;
    unsigned dy_ld;
    unsigned dqkv_ld;
};

struct AttendArgs {
    const float* q;
    const float* kv;
    const unsigned char* valid;
    float* y;
    unsigned* work;
    unsigned b;
    unsigned c;
    unsigned r;
    unsigned e;
    unsigned t;
    unsigned heads;
    unsigned q_ld;
    unsigned kv_ld;
    unsigned valid_ld;
    unsigned y_ld;
};

template <class T>
struct LayernormArgs {
    const T* x;
    const float* w;
    const float* b;
    float* y;
    float* stats;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned eps;
    unsigned x_ld;
    unsigned w_ld;
    unsigned b_ld;
    unsigned y_ld;
    unsigned stats_ld;
};

template <class T>
struct LayernormDxArgs {
    const T* dy;
    const T* x;
    const float* w;
    const float* stats;
    const float* add;
    float* dx;
    float* dw;
    float* db;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned dy_ld;
    unsigned x_ld;
    unsigned w_ld;
    unsigned stats_ld;
    unsigned add_ld;
    unsigned dx_ld;
    unsigned dw_ld;
    unsigned db_ld;
};

struct GeluArgs {
    const float* x;
    float* y;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned x_ld;
    unsigned y_ld;
};

struct GeluDxArgs {
    const float* x;
    const float* dy;
    float* dx;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned x_ld;
    unsigned dy_ld;
    unsigned dx_ld;
};

struct AddArgs {
    const float* a;
    const float* b;
    float* y;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned a_ld;
    unsigned b_ld;
    unsigned y_ld;
};

struct FillArgs {
    float* y;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned value;
    unsigned y_ld;
};

struct DropoutArgs {
    const float* x;
    const float* add;
    const unsigned* rng;
    float* y;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned drop;
    unsigned call;
    unsigned x_ld;
    unsigned add_ld;
    unsigned rng_ld;
    unsigned y_ld;
};

struct DropoutDxArgs {
    const float* dy;
    const unsigned* rng;
    float* dx;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned drop;
    unsigned call;
    unsigned dy_ld;
    unsigned rng_ld;
    unsigned dx_ld;
};

struct EmbedArgs {
    const unsigned* ids;
    const float* w;
    const unsigned* mask;
    float* y;
    unsigned* work;
    unsigned r;
    unsigned v;
    unsigned c;
    unsigned ids_ld;
    unsigned w_ld;
    unsigned mask_ld;
    unsigned y_ld;
};

struct EmbedDwArgs {
    const float* dy;
    const unsigned* ids;
    const float* w;
    const unsigned* mask;
    const float* score;
    const unsigned* candidates;
    float* dw;
    float* ds;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned v;
    unsigned dy_ld;
    unsigned ids_ld;
    unsigned w_ld;
    unsigned mask_ld;
    unsigned score_ld;
    unsigned candidates_ld;
    unsigned dw_ld;
    unsigned ds_ld;
};

struct InterleaveArgs {
    const float* x0;
    const float* x1;
    const float* x2;
    const float* time;
    float* y;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned q;
    unsigned x0_ld;
    unsigned x1_ld;
    unsigned x2_ld;
    unsigned time_ld;
    unsigned y_ld;
};

struct InterleaveDxArgs {
    const float* dy;
    float* dx0;
    float* dx1;
    float* dx2;
    float* dtime;
    unsigned* work;
    unsigned q;
    unsigned c;
    unsigned r;
    unsigned dy_ld;
    unsigned dx0_ld;
    unsigned dx1_ld;
    unsigned dx2_ld;
    unsigned dtime_ld;
};

struct SelectArgs {
    const float* x;
    float* y;
    unsigned* work;
    unsigned q;
    unsigned c;
    unsigned r;
    unsigned stride;
    unsigned offset;
    unsigned x_ld;
    unsigned y_ld;
};

struct SelectDxArgs {
    const float* dy;
    float* dx;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned q;
    unsigned stride;
    unsigned offset;
    unsigned dy_ld;
    unsigned dx_ld;
};

struct SlideArgs {
    const float* x;
    float* window;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned q;
    unsigned b;
    unsigned x_ld;
    unsigned window_ld;
};

struct CrossEntropyArgs {
    const float* logits;
    const unsigned* target;
    const unsigned* allowed;
    float* loss;
    float* logprob;
    unsigned* work;
    unsigned r;
    unsigned a;
    unsigned logits_ld;
    unsigned target_ld;
    unsigned allowed_ld;
    unsigned loss_ld;
    unsigned logprob_ld;
};

struct CrossEntropyDxArgs {
    const float* logits;
    const unsigned* target;
    const unsigned* allowed;
    const float* dloss;
    float* dlogits;
    unsigned* work;
    unsigned r;
    unsigned a;
    unsigned logits_ld;
    unsigned target_ld;
    unsigned allowed_ld;
    unsigned dloss_ld;
    unsigned dlogits_ld;
};

struct MaskedMseArgs {
    const float* pred;
    const float* target;
    const unsigned char* valid;
    const float* active;
    float* loss;
    unsigned* work;
    unsigned r;
    unsigned a;
    unsigned pred_ld;
    unsigned target_ld;
    unsigned valid_ld;
    unsigned active_ld;
    unsigned loss_ld;
};

struct MaskedMseDxArgs {
    const float* pred;
    const float* target;
    const unsigned char* valid;
    const float* active;
    const float* dloss;
    float* dpred;
    unsigned* work;
    unsigned r;
    unsigned a;
    unsigned pred_ld;
    unsigned target_ld;
    unsigned valid_ld;
    unsigned active_ld;
    unsigned dloss_ld;
    unsigned dpred_ld;
};

struct TopkArgs {
    const float* score;
    const unsigned* candidates;
    const unsigned* base;
    const unsigned* k;
    unsigned* mask;
    unsigned* work;
    unsigned o;
    unsigned i;
    unsigned ties;
    unsigned score_ld;
    unsigned candidates_ld;
    unsigned base_ld;
    unsigned k_ld;
    unsigned mask_ld;
};

struct AdamwArgs {
    const float* g;
    const unsigned* trainable;
    const float* step;
    const float* clip;
    float* p;
    float* m;
    float* v;
    unsigned* work;
    unsigned o;
    unsigned i;
    unsigned beta1;
    unsigned beta2;
    unsigned eps;
    unsigned weight_decay;
    unsigned lr_scale;
    unsigned g_ld;
    unsigned trainable_ld;
    unsigned step_ld;
    unsigned clip_ld;
    unsigned p_ld;
    unsigned m_ld;
    unsigned v_ld;
};

struct SumsqArgs {
    const float* g;
    const unsigned* trainable;
    float* s;
    unsigned* work;
    unsigned o;
    unsigned i;
    unsigned g_ld;
    unsigned trainable_ld;
    unsigned s_ld;
};

struct ClipArgs {
    const float* s;
    float* norm;
    float* factor;
    unsigned* work;
    unsigned n;
    unsigned max_norm;
    unsigned s_ld;
    unsigned norm_ld;
    unsigned factor_ld;
};

struct PullArgs {
    const float* g;
    const float* f;
    const float* p;
    const float* a;
    float* y;
    unsigned* work;
    unsigned o;
    unsigned i;
    unsigned strength;
    unsigned g_ld;
    unsigned f_ld;
    unsigned p_ld;
    unsigned a_ld;
    unsigned y_ld;
};

struct PathIntegralArgs {
    const float* g;
    const float* p;
    float* last;
    float* w;
    unsigned* work;
    unsigned o;
    unsigned i;
    unsigned g_ld;
    unsigned p_ld;
    unsigned last_ld;
    unsigned w_ld;
};

struct SumArgs {
    const float* x;
    float* y;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned x_ld;
    unsigned y_ld;
};

struct MomentsArgs {
    const float* x;
    float* mean;
    float* var;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned floor;
    unsigned x_ld;
    unsigned mean_ld;
    unsigned var_ld;
};

struct SymKlArgs {
    const float* mean_p;
    const float* var_p;
    const float* mean_q;
    const float* var_q;
    float* kl;
    unsigned* work;
    unsigned d;
    unsigned mean_p_ld;
    unsigned var_p_ld;
    unsigned mean_q_ld;
    unsigned var_q_ld;
    unsigned kl_ld;
};

template <class T>
struct CosineArgs {
    const T* q;
    const T* p;
    float* y;
    unsigned* work;
    unsigned n;
    unsigned d;
    unsigned m;
    unsigned q_ld;
    unsigned p_ld;
    unsigned y_ld;
};

template <class T>
struct CosineTopkArgs {
    const T* q;
    const T* p;
    float* score;
    unsigned* index;
    unsigned* work;
    unsigned n;
    unsigned d;
    unsigned m;
    unsigned k;
    unsigned q_ld;
    unsigned p_ld;
    unsigned score_ld;
    unsigned index_ld;
};

struct KmeansArgs {
    const float* x;
    const unsigned* select;
    const float* init;
    float* center;
    unsigned char* code;
    float* inertia;
    unsigned* used;
    unsigned* work;
    unsigned n;
    unsigned k;
    unsigned x_ld;
    unsigned select_ld;
    unsigned init_ld;
    unsigned center_ld;
    unsigned code_ld;
    unsigned inertia_ld;
    unsigned used_ld;
};

struct PackBitsArgs {
    const unsigned char* flags;
    unsigned* mask;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned flags_ld;
    unsigned mask_ld;
};

struct UnpackBitsArgs {
    const unsigned* mask;
    unsigned char* flags;
    unsigned* work;
    unsigned r;
    unsigned c;
    unsigned mask_ld;
    unsigned flags_ld;
};

// Ops that are done to rows which a warp holds: `rows.h`.
enum class RowOp : unsigned long long {
    layernorm,
    layernorm_dx,
    gelu,
    gelu_dx,
    add,
    dropout,
    dropout_dx,
    interleave,
    select,
    select_dx,
};
