"""The few calls of the CUDA driver that running a kernel takes."""
import ctypes
import json
import sys

JIT_ERROR_LOG = 5
JIT_ERROR_LOG_BYTES = 6
JIT_LOG_SIZE = 16384
MAX_DYNAMIC_SHARED = 8
COMPUTE_MAJOR, COMPUTE_MINOR = 75, 76

class CudaError(Exception):
    def __init__(self, call, code, name, log=""):
        super().__init__(f"{call}: {name} ({code}){': ' + log if log else ''}")


class Driver:
    """The first device, its primary context, and memory in it."""

    def __init__(self):
        try:
            self.lib = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise CudaError("libcuda.so.1", 100, f"no driver: {error}") from None
        self.call("cuInit", 0)
        self.device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(self.device), 0)
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.device)
        self.call("cuCtxSetCurrent", context)

    def call(self, name, *args):
        code = getattr(self.lib, name)(*args)
        if code:
            raise CudaError(name, code, self.error_name(code))

    def error_name(self, code):
        text = ctypes.c_char_p()
        self.lib.cuGetErrorName(code, ctypes.byref(text))
        return text.value.decode() if text.value else "unknown error"

    def name(self):
        text = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", text, 256, self.device)
        return text.value.decode()

    def compute(self):
        """Major and minor version of the architecture."""
        numbers = []
        for attribute in (COMPUTE_MAJOR, COMPUTE_MINOR):
            number = ctypes.c_int()
            self.call("cuDeviceGetAttribute", ctypes.byref(number), attribute, self.device)
            numbers.append(number.value)
        return tuple(numbers)

    def load(self, image):
        """A module from the bytes of a cubin or of PTX; PTX is compiled here, by the driver."""
        log = ctypes.create_string_buffer(JIT_LOG_SIZE)
        options = (ctypes.c_int * 2)(JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES)
        values = (ctypes.c_void_p * 2)(ctypes.cast(log, ctypes.c_void_p), JIT_LOG_SIZE)
        module = ctypes.c_void_p()
        code = self.lib.cuModuleLoadDataEx(ctypes.byref(module), image + b"\0", 2, options, values)
        if code:
            raise CudaError("cuModuleLoadDataEx", code, self.error_name(code), log.value.decode(errors="replace"))
        return module

    def function(self, module, symbol, shared_bytes):
        function = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(function), module, symbol.encode())
        if shared_bytes:
            self.call("cuFuncSetAttribute", function, MAX_DYNAMIC_SHARED, shared_bytes)
        return function

    def allocate(self, n_bytes):
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(n_bytes, 1)))
        return address.value

    def free(self, address):
        self.call("cuMemFree_v2", ctypes.c_uint64(address))

    def upload(self, address, array):
        if array.nbytes:
            to, source = ctypes.c_uint64(address), ctypes.c_void_p(array.ctypes.data)
            self.call("cuMemcpyHtoD_v2", to, source, ctypes.c_size_t(array.nbytes))

    def download(self, array, address):
        if array.nbytes:
            to, source = ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(address)
            self.call("cuMemcpyDtoH_v2", to, source, ctypes.c_size_t(array.nbytes))

    def launch(self, function, grid, threads, shared_bytes, addresses):
        """Starts a kernel whose parameters are pointers, and waits for it."""
        arguments = [ctypes.c_uint64(address) for address in addresses]
        pointers = (ctypes.c_void_p * len(arguments))(*[ctypes.addressof(a) for a in arguments])
        self.call("cuLaunchKernel", function, grid[0], grid[1], 1, threads, 1, 1, shared_bytes, None, pointers, None)
        self.call("cuCtxSynchronize")


def main():
    """Prints name and architecture of the device; ends with 1 if there is none."""
    try:
        driver = Driver()
        print(json.dumps({"name": driver.name(), "compute": driver.compute()}))
    except CudaError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
