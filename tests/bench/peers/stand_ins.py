"""Stand-ins for the CUDA libraries that PyTorch's wheel for Linux is linked with.

Nothing of them is called on the CPU, and they are four gigabytes. A stand-in has the symbols that PyTorch asks of the
library, under the versions that it asks for, and stops the program if one of them is called after all.

    python stand_ins.py SITE_PACKAGES
"""

import subprocess
import sys
import tempfile
from pathlib import Path

# Name of the library, version of its symbols, and how symbols begin if they have no version.
LIBRARIES = [
    ("libcublas.so.13", "libcublas.so.13", None),
    ("libcublasLt.so.13", "libcublasLt.so.13", None),
    ("libcudnn.so.9", "libcudnn.so.9", None),
    ("libcufft.so.12", "libcufft.so.12", None),
    ("libcusparse.so.12", "libcusparse.so.12", None),
    ("libnvshmem_host.so.3", "NVSHMEM", None),
    ("libcufile.so.0", None, "cuFile"),
    ("libcurand.so.10", None, "curand"),
    ("libcusparseLt.so.0", None, "cusparseLt"),
    ("libnccl.so.2", None, "nccl"),
]


def undefined(library):
    """Symbols that a library takes from others, each with its version or None."""
    command = ["nm", "-D", "--undefined-only", str(library)]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        name, _, version = line.split()[-1].partition("@")
        yield name, version.lstrip("@") or None


def build(path, symbols, version):
    """A shared library with functions of these names."""
    with tempfile.TemporaryDirectory() as folder:
        code, versions = Path(folder, "code.c"), Path(folder, "versions.map")
        code.write_text("".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in sorted(symbols)))
        versions.write_text(f"{version or ''} {{ global: *; }};\n")
        command = ["gcc", "-shared", "-nostdlib", "-fno-builtin", "-o", path, f"-Wl,-soname,{path.name}"]
        subprocess.run([*command, f"-Wl,--version-script={versions}", code], check=True)


def main(site_packages):
    wanted = {symbol for library in (site_packages / "torch/lib").glob("*.so") for symbol in undefined(library)}
    folder = site_packages / "nvidia/cu13/lib"
    for library, version, prefix in LIBRARIES:
        def belongs(name, of):
            return of == version if version else of is None and name.startswith(prefix)
        build(folder / library, {name for name, of in wanted if belongs(name, of)}, version)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
