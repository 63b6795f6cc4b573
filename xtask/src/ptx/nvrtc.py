# Compiles one CUDA source to PTX: nvrtc.py ADDRESSES LIBRARIES HEADERS SOURCE OUTPUT OPTION...; no GPU and no toolkit needed.
import ctypes
import os
import pathlib
import sys
import threading

addresses, libraries, headers, source, output, *options = sys.argv[1:]
# The order of some instructions follows the addresses of the compiler's own memory: `fixed` ones are not drawn at random, which takes
# effect in a program that is begun anew. A thread has memory of its own, in which nothing of Python's lies, folders have names of
# one length wherever they are, and the caller gives no environment.
FIXED_ADDRESSES, ASK = 0x0040000, 0xFFFFFFFF
if addresses == "fixed" and sys.platform == "linux":
    system = ctypes.CDLL(None)
    before = system.personality(ASK)
    if before != -1 and not before & FIXED_ADDRESSES and system.personality(before | FIXED_ADDRESSES) != -1:
        os.execv(sys.executable, sys.orig_argv)
    for number, folder in (100, libraries), (101, headers):
        os.dup2(os.open(folder, os.O_RDONLY), number)
    libraries, headers = "/proc/self/fd/100", "/proc/self/fd/101"
options.append(f"--include-path={headers}")
found = {path.name.split(".so")[0]: path for path in pathlib.Path(libraries).glob("libnvrtc*.so*")}


def check(code):
    if code != 0:
        sys.exit(nvrtc.nvrtcGetErrorString(code).decode())


def text(size_of, get):
    size = ctypes.c_size_t()
    check(size_of(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    check(get(program, buffer))
    return buffer.value.decode()


def compile():
    global nvrtc, failed
    # The compiler opens this one by its bare name: loaded before, it is found.
    ctypes.CDLL(str(found["libnvrtc-builtins"]), mode=ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(str(found["libnvrtc"]))
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    failed = nvrtc.nvrtcCreateProgram(ctypes.byref(program), content, name, 0, None, None)
    failed = failed or nvrtc.nvrtcCompileProgram(program, len(options), arguments)


program = ctypes.c_void_p()
content, name = pathlib.Path(source).read_bytes(), pathlib.Path(source).name.encode()
arguments = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
thread = threading.Thread(target=compile)
thread.start()
thread.join()
if not program:
    check(failed)
log = text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).strip()
if failed != 0 or log:
    sys.exit(f"{source}:\n{log}")
pathlib.Path(output).write_text(text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX))
