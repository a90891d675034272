// Lets chosen calls of a process fail, or ends the process at them. Loaded into it by LD_PRELOAD, and told by the environment:
//
//     FAULTS_PAGE     a file of struct page, mapped: what is asked for, and what happened
//     FAULTS_FOLDER   system calls count that are about files below this folder
//
// System calls are caught by a filter of the kernel (seccomp) that turns them into a signal, so that those count, too, which a
// program makes without the C library. Allocations are functions of the C library, which this library has under the same names.
//
// A program that the process starts inherits the filter and not what answers it, and ends at its first call that is caught.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

// The same as `Page` in shim.rs.
struct page {
    // What is asked for. The call that fails, from 1; 0: none.
    uint64_t file_at, allocation_at;
    // What it fails with; 0: the process is killed before the call.
    uint64_t error;
    // Whether all calls after it fail as well.
    uint64_t and_after;
    // Fewest bytes of an allocation that counts.
    uint64_t least;
    // What happened. 1 where the filter is in place.
    _Atomic uint64_t is_in_place;
    // Calls so far, and how many of them failed.
    _Atomic uint64_t files, allocations, failed;
    // The numbers of the first system calls.
    uint64_t calls[1024];
};

static struct page *page;
static char folder[4096];
static size_t folder_length;

// A system call that the filter lets through: it knows the address behind the instruction.
long faults_call(long number, long a, long b, long c, long d, long e, long f);
extern const char faults_called[];
__asm__(".text\n"
        ".globl faults_call\n.hidden faults_call\n.type faults_call, @function\n"
        "faults_call:\n"
        "mov %rdi, %rax\nmov %rsi, %rdi\nmov %rdx, %rsi\nmov %rcx, %rdx\nmov %r8, %r10\nmov %r9, %r8\nmov 8(%rsp), %r9\n"
        "syscall\n"
        ".globl faults_called\n.hidden faults_called\n"
        "faults_called:\n"
        "ret\n");

static int fails(uint64_t now, uint64_t at) {
    return at != 0 && (now == at || (page->and_after && now > at));
}

static int is_below(const char *path) {
    return strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || path[folder_length] == 0);
}

// Whether an open file is below the folder.
static int is_file_below(long fd) {
    char name[32] = "/proc/self/fd/", digits[16], path[sizeof folder];
    size_t length = 14, n = 0;
    if (fd < 0) return 0;
    do digits[n++] = '0' + fd % 10; while (fd /= 10);
    while (n) name[length++] = digits[--n];
    name[length] = 0;
    long read = faults_call(SYS_readlink, (long)name, (long)path, sizeof path - 1, 0, 0, 0);
    if (read <= 0) return 0;
    path[read] = 0;
    return is_below(path);
}

// The path of a call that is given one, or NULL.
static const char *path_of(long number, const long *args) {
    switch (number) {
    case SYS_open: case SYS_creat: case SYS_mkdir: case SYS_truncate: case SYS_chmod: return (const char *)args[0];
    case SYS_openat: case SYS_mkdirat: case SYS_fchmodat: case SYS_rename: case SYS_link: case SYS_symlink: return (const char *)args[1];
    case SYS_symlinkat: return (const char *)args[2];
    case SYS_renameat: case SYS_renameat2: case SYS_linkat: return (const char *)args[3];
    default: return NULL;
    }
}

// Calls that change files; those about an open file have it as their first argument, but for these.
static long file_of(long number, const long *args) {
    return number == SYS_copy_file_range || number == SYS_splice ? args[2] : args[0];
}

static const int CALLS[] = {
    SYS_write, SYS_pwrite64, SYS_writev, SYS_pwritev, SYS_pwritev2, SYS_fsync, SYS_fdatasync, SYS_ftruncate, SYS_fallocate,
    SYS_fchmod, SYS_fchown, SYS_copy_file_range, SYS_sendfile, SYS_splice, SYS_creat, SYS_mkdir, SYS_mkdirat, SYS_truncate,
    SYS_chmod, SYS_fchmodat, SYS_rename, SYS_renameat, SYS_renameat2, SYS_link, SYS_linkat, SYS_symlink, SYS_symlinkat,
};

static void on_call(int signal, siginfo_t *info, void *context) {
    (void)signal;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const long number = info->si_syscall;
    const long args[6] = {registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                          registers[REG_R10], registers[REG_R8], registers[REG_R9]};
    const char *path = path_of(number, args);
    if (path ? is_below(path) : is_file_below(file_of(number, args))) {
        uint64_t before = atomic_fetch_add(&page->files, 1);
        if (before < sizeof page->calls / sizeof *page->calls) page->calls[before] = number;
        if (fails(before + 1, page->file_at)) {
            atomic_fetch_add(&page->failed, 1);
            if (page->error == 0) faults_call(SYS_kill, getpid(), SIGKILL, 0, 0, 0, 0);
            registers[REG_RAX] = -(long)page->error;
            return;
        }
    }
    registers[REG_RAX] = faults_call(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

#define FIELD(name) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, name))
#define HIGH(name) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, name) + 4)
#define IF_EQUAL(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), yes, no)
#define LET BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define CATCH BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP)
// An open of a file that is to be written.
#define OPEN(number, flags) \
    IF_EQUAL(number, 0, 4), FIELD(args[flags]), \
    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_WRONLY | O_RDWR | O_CREAT, 0, 1), CATCH, LET

static int filter(void) {
    enum { N_CALLS = sizeof CALLS / sizeof *CALLS };
    const uintptr_t ours = (uintptr_t)faults_called;
    struct sock_filter begin[] = {
        FIELD(arch), IF_EQUAL(AUDIT_ARCH_X86_64, 1, 0), LET,
        FIELD(instruction_pointer), IF_EQUAL(ours, 0, 3), HIGH(instruction_pointer), IF_EQUAL(ours >> 32, 0, 1), LET,
        FIELD(nr), OPEN(SYS_open, 1), OPEN(SYS_openat, 2),
    };
    enum { BEGIN = sizeof begin / sizeof *begin };
    struct sock_filter all[BEGIN + 2 * N_CALLS + 1];
    memcpy(all, begin, sizeof begin);
    for (int at = 0; at < N_CALLS; at++) {
        all[BEGIN + 2 * at] = (struct sock_filter)IF_EQUAL(CALLS[at], 0, 1);
        all[BEGIN + 2 * at + 1] = (struct sock_filter)CATCH;
    }
    all[BEGIN + 2 * N_CALLS] = (struct sock_filter)LET;
    struct sock_fprog program = {.len = sizeof all / sizeof *all, .filter = all};
    struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO | SA_NODEFER};
    return sigaction(SIGSYS, &action, NULL) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("FAULTS_PAGE"), *below = getenv("FAULTS_FOLDER");
    if (!file || !below || strlen(below) >= sizeof folder) return;
    int fd = open(file, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = (void *)syscall(SYS_mmap, NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED) return;
    strcpy(folder, below);
    folder_length = strlen(folder);
    page = mapped;
    if (filter()) atomic_store(&page->is_in_place, 1);
}

// Whether an allocation of so many bytes fails.
static int refused(size_t size) {
    if (!page || size < page->least) return 0;
    if (!fails(1 + atomic_fetch_add(&page->allocations, 1), page->allocation_at)) return 0;
    atomic_fetch_add(&page->failed, 1);
    return 1;
}

void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);

static void *none(void) {
    errno = ENOMEM;
    return NULL;
}

void *malloc(size_t size) { return refused(size) ? none() : __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return refused(n * size) ? none() : __libc_calloc(n, size); }
void *realloc(void *at, size_t size) { return refused(size) ? none() : __libc_realloc(at, size); }
void *memalign(size_t to, size_t size) { return refused(size) ? none() : __libc_memalign(to, size); }
void *aligned_alloc(size_t to, size_t size) { return memalign(to, size); }

int posix_memalign(void **at, size_t to, size_t size) {
    void *memory = refused(size) ? NULL : __libc_memalign(to, size);
    if (memory) *at = memory;
    return memory ? 0 : ENOMEM;
}

void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset) {
    if (refused(size)) {
        none();
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    return mmap64(at, size, protection, flags, fd, offset);
}
