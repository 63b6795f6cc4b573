# Compiles one CUDA source to PTX: nvrtc.py LIBRARIES SOURCE OUTPUT OPTION...; no GPU and no toolkit needed.
import ctypes
import pathlib
import sys

libraries, source, output, *options = sys.argv[1:]
found = {path.name.split(".so")[0]: path for path in pathlib.Path(libraries).glob("libnvrtc*.so*")}
# The compiler opens this one by its bare name: loaded before, it is found.
ctypes.CDLL(str(found["libnvrtc-builtins"]), mode=ctypes.RTLD_GLOBAL)
nvrtc = ctypes.CDLL(str(found["libnvrtc"]))
nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p


def check(code):
    if code != 0:
        sys.exit(nvrtc.nvrtcGetErrorString(code).decode())


def text(size_of, get):
    size = ctypes.c_size_t()
    check(size_of(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    check(get(program, buffer))
    return buffer.value.decode()


program = ctypes.c_void_p()
name = pathlib.Path(source).name.encode()
check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), pathlib.Path(source).read_bytes(), name, 0, None, None))
arguments = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
failed = nvrtc.nvrtcCompileProgram(program, len(options), arguments)
log = text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).strip()
if failed != 0 or log:
    sys.exit(f"{source}:\n{log}")
pathlib.Path(output).write_text(text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX))
