//! Compiles every CUDA source as C++: a unit for each, and a table of their kernels.

fn main() {
    #[cfg(feature = "compiled")]
    compiled::build();
}

#[cfg(feature = "compiled")]
mod compiled {
    use kernels::OPS;
    use kernels::contract::cuda::rows::{ROWS, ROWS_MODULE};
    use kernels::contract::cuda::{Cuda, is_template, members, struct_name};
    use std::collections::BTreeMap;
    use std::fmt::Write;
    use std::path::PathBuf;

    /// Kernels with a fault each, by their file in `faults`.
    const FAULTS: [(&str, &[&str]); 3] = [
        (
            "faults",
            &[
                "shift",
                "no_barrier",
                "no_second_barrier",
                "divergent_barrier",
                "outside_mask",
                "missing_lanes",
                "unwritten_shared",
                "behind_the_end",
                "behind_shared",
                "early_read",
                "endless_copy",
                "fragments",
                "mixed_fragments",
                "fragments_f16",
                "foreign_fragments",
            ],
        ),
        (
            "faults_products",
            &[
                "unturned_taps",
                "one_plane",
                "half_a_chunk",
                "first_images",
                "conv_dw_finish_f32",
                "first_class",
                "one_place",
                "neighbours_lengths",
                "other_exponents",
            ],
        ),
        (
            "faults_async",
            &[
                "square_right",
                "unfenced_stores",
                "unfenced_barrier",
                "unordered_sums",
                "early_product",
                "early_sums",
                "overwritten_tile",
                "plain_stores",
                "chunks_in_order",
                "other_stride",
                "turned_tile",
                "unaligned_tile",
                "more_bytes",
                "fewer_bytes",
                "missing_arrival",
                "one_arrival_more",
                "missing_warp",
                "endless_bulk_copy",
                "endless_product",
                "no_map",
                "left_in_registers",
                "overwritten_registers",
            ],
        ),
    ];

    pub(super) fn build() {
        // A lint links nothing, and cargo would compile everything for it once more.
        if std::env::var("RUSTC_WORKSPACE_WRAPPER").is_ok_and(|wrapper| wrapper.contains("clippy")) {
            return;
        }
        let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo"));
        let sources = here.join("../../kernels/src");
        let mut compiler = cc::Build::new();
        compiler.cpp(true).std("c++17").opt_level(2).include(&here).include(sources.join("cuda"));
        compiler.define("HOST_CUDA", None).flag("-ffp-contract=off").flag("-march=x86-64-v3").debug(false);
        // Kernels that a unit does not launch are not its fault; a comparison of signed and unsigned is a kernel's.
        compiler.flag("-Wall").flag("-Wextra").flag("-Wno-unused-function").flag("-Wno-unknown-pragmas");
        // A tensor map is aligned to 64 bytes; nothing here was compiled by a GCC that passed such an argument otherwise.
        compiler.flag("-Wno-psabi");
        compiler.warnings_into_errors(true);
        let mut modules: BTreeMap<&str, (PathBuf, Vec<String>)> = BTreeMap::new();
        for Cuda { module, launches, .. } in OPS.iter().flat_map(|op| op.cuda) {
            let entries = modules.entry(module.name).or_insert_with(|| (sources.join(module.path), Vec::new()));
            for launch in *launches {
                entries.1.push(launch.entry.to_owned());
                entries.1.extend(launch.batched.then(|| launch.batch_entry()));
                entries.1.extend(launch.head.map(|head| head.entry.to_owned()));
            }
        }
        for (name, entries) in FAULTS {
            let entries = entries.iter().map(|entry| (*entry).to_owned()).collect();
            modules.insert(name, (here.join(format!("faults/{name}.cu")), entries));
        }
        modules.insert(ROWS_MODULE.name, (sources.join(ROWS_MODULE.path), vec![ROWS.entry.to_owned()]));
        let mut table = Table::default();
        for (name, (path, mut entries)) in modules {
            entries.sort_unstable();
            entries.dedup();
            let unit = out.join(format!("{name}.cpp"));
            std::fs::write(&unit, text_of(name, &path, &entries)).expect("a file in OUT_DIR");
            compiler.file(unit);
            println!("cargo::rerun-if-changed={}", path.display());
            table.add(name, &entries);
        }
        let unit = out.join("table.cpp");
        std::fs::write(&unit, table.text()).expect("a file in OUT_DIR");
        compiler.file(unit).files(["runtime.cpp", "async.cpp"].map(|file| here.join(file)));
        for file in ["host_cuda.h", "runtime.cpp", "async.h", "async.cpp", "build.rs"] {
            println!("cargo::rerun-if-changed={}", here.join(file).display());
        }
        println!("cargo::rerun-if-changed={}", sources.join("cuda").display());
        compiler.compile("emulated");
    }

    /// A source in a namespace of its own, so that functions of one name in two sources are two, and its exports.
    fn text_of(module: &str, path: &std::path::Path, entries: &[String]) -> String {
        let mut text = format!("#include \"host_cuda.h\"\nnamespace {{\n#include \"{}\"\n}}\n", path.display());
        for entry in entries {
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "void hc_{module}_{entry}(const hc::Launch& l, const void* a) {{ hc::launch({entry}, l, a); }}\n\
                 extern const size_t hc_bytes_{module}_{entry} = hc::argument_bytes({entry});\n"
            );
        }
        text
    }

    /// What the Rust side looks up.
    #[derive(Default)]
    struct Table {
        declared: String,
        listed: String,
    }

    impl Table {
        fn add(&mut self, module: &str, entries: &[String]) {
            for entry in entries {
                // Writing to a string cannot fail.
                let _ = write!(
                    self.declared,
                    "void hc_{module}_{entry}(const hc::Launch&, const void*);\n\
                     extern const size_t hc_bytes_{module}_{entry};\n"
                );
                let _ = writeln!(
                    self.listed,
                    "    {{\"{module}\", \"{entry}\", hc_{module}_{entry}, &hc_bytes_{module}_{entry}}},"
                );
            }
        }

        fn text(&self) -> String {
            let mut members_of = String::new();
            for op in OPS {
                let of = if is_template(op) { "<float>" } else { "" };
                for member in members(op) {
                    let (name, kind) = (&member.name, format!("{}{of}", struct_name(op)));
                    // Writing to a string cannot fail.
                    let _ = writeln!(
                        members_of,
                        "    {{\"{}\", \"{name}\", offsetof({kind}, {name}), sizeof({kind})}},",
                        op.name
                    );
                }
            }
            format!(
                "#include \"host_cuda.h\"\n#include <cstddef>\nnamespace {{\n#include \"device.h\"\n}}\n{}\
                 namespace {{\n\
                 struct Kernel {{ const char *module, *entry; void (*run)(const hc::Launch&, const void*); const size_t* bytes; }};\n\
                 const Kernel kernels[] = {{\n{}}};\n\
                 struct Member {{ const char *op, *name; size_t offset, size; }};\n\
                 const Member members[] = {{\n{members_of}}};\n\
                 }}\n\
                 extern \"C\" const Kernel* emulator_kernel(size_t at) {{\n\
                 \x20   return at < sizeof kernels / sizeof *kernels ? &kernels[at] : nullptr;\n}}\n\
                 extern \"C\" const Member* emulator_member(size_t at) {{\n\
                 \x20   return at < sizeof members / sizeof *members ? &members[at] : nullptr;\n}}\n\
                 extern \"C\" void emulator_run(const Kernel* kernel, const hc::Launch* launch, const void* argument) {{\n\
                 \x20   kernel->run(*launch, argument);\n}}\n",
                self.declared, self.listed
            )
        }
    }
}
