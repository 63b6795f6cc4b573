// Runs recorded launches again, in a program that is compiled with -fsanitize=thread: threads of a block that touch the same
// shared or device memory without a barrier between them are a data race, which names both lines of the kernel.
//
//   replay FILE    launches as `Emulator::recording` writes them; at most 4 blocks of each
#include <cstddef>
#include <string>

#include "host_cuda.h"

namespace {

struct Kernel {
    const char *module, *entry;
    void (*run)(const hc::Launch&, const void*);
    const size_t* bytes;
};

constexpr uint64_t BLOCKS = 4;

struct Region {
    uint64_t address, bytes;
    std::unique_ptr<char[]> held;
    char* begin;
};

// Bytes with pointers, which are the words that lie in a region as it was.
void move_pointers(char* begin, size_t bytes, const std::vector<Region>& regions) {
    for (size_t at = 0; at + 8 <= bytes; at += 8) {
        uint64_t word;
        std::memcpy(&word, begin + at, 8);
        for (const Region& region : regions) {
            if (word < region.address || word - region.address >= region.bytes) continue;
            uint64_t moved = reinterpret_cast<uintptr_t>(region.begin) + (word - region.address);
            std::memcpy(begin + at, &moved, 8);
            break;
        }
    }
}

void read(std::FILE* file, void* to, size_t bytes) {
    if (bytes > 0 && std::fread(to, bytes, 1, file) != 1) {
        std::fprintf(stderr, "replay: the file ends too early\n");
        std::exit(2);
    }
}

template <class T>
T number(std::FILE* file) {
    T v;
    read(file, &v, sizeof v);
    return v;
}

std::string text(std::FILE* file) {
    std::string all(number<uint64_t>(file), '\0');
    read(file, all.data(), all.size());
    return all;
}

}  // namespace

extern "C" const Kernel* emulator_kernel(size_t at);

int main(int count, char** words) {
    std::FILE* file = count == 2 ? std::fopen(words[1], "rb") : nullptr;
    if (!file) {
        std::fprintf(stderr, "replay: no file to read\n");
        return 2;
    }
    for (uint64_t left = number<uint64_t>(file); left > 0; left--) {
        std::string module = text(file), entry = text(file), argument = text(file);
        hc::Launch launch = {};
        read(file, &launch.grid, sizeof launch.grid);
        launch.threads = number<unsigned>(file);
        launch.shared_bytes = number<unsigned>(file);
        std::vector<Region> regions(number<uint64_t>(file));
        for (Region& region : regions) {
            region.address = number<uint64_t>(file);
            region.bytes = number<uint64_t>(file);
            region.held.reset(new char[region.bytes + 256]);
            // As an allocation of a GPU, a multiple of 256.
            region.begin = region.held.get() + (256 - reinterpret_cast<uintptr_t>(region.held.get()) % 256);
            read(file, region.begin, region.bytes);
        }
        move_pointers(argument.data(), argument.size(), regions);
        // Stages are listed in device memory.
        for (const Region& region : regions) move_pointers(region.begin, region.bytes, regions);
        const Kernel* kernel = nullptr;
        for (size_t at = 0; (kernel = emulator_kernel(at)) && (module != kernel->module || entry != kernel->entry);) at++;
        if (!kernel || *kernel->bytes != argument.size()) {
            std::fprintf(stderr, "replay: no kernel %s of this argument\n", entry.c_str());
            return 2;
        }
        launch.kernel = kernel->entry;
        launch.count = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
        if (launch.count > BLOCKS) launch.count = BLOCKS;
        std::printf("%s\n", kernel->entry);
        std::fflush(stdout);
        kernel->run(launch, argument.data());
    }
    return 0;
}
