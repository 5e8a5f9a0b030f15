/* syscalls.c - the filter of system calls. Layer: daemon. Interface: syscalls.h.
 *
 * The list is what `strace -f` saw over the tests, and the relatives of each of these that another version of a
 * library, or another kind of machine, has instead. A refused call raises SIGSYS: its handler lets the call fail,
 * and writes its number to a pipe.
 */
#include "daemon/syscalls.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/str.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static const char allowed[] =
    /* memory */
    "brk munmap mremap madvise msync mincore membarrier "
    /* files */
    "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 open openat close "
    "lseek stat lstat fstat newfstatat statx access faccessat faccessat2 readlink readlinkat "
    "getdents getdents64 fcntl dup dup2 dup3 fsync fdatasync sync_file_range ftruncate fallocate "
    "fadvise64 flock mkdir mkdirat unlink unlinkat rename renameat renameat2 chmod fchmod fchmodat "
    "chown fchown lchown fchownat umask statfs fstatfs getcwd sendfile "
    /* sockets; `socket` is below */
    "bind connect listen accept accept4 getsockname getpeername getsockopt setsockopt sendto "
    "recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown socketpair "
    /* waiting */
    "epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select "
    "pselect6 eventfd eventfd2 signalfd signalfd4 pipe pipe2 timerfd_create timerfd_settime "
    "timerfd_gettime nanosleep clock_nanosleep restart_syscall "
    /* threads and signals */
    "futex futex_waitv set_robust_list get_robust_list set_tid_address rseq gettid getpid getppid "
    "exit exit_group sched_yield sched_getaffinity sched_getparam sched_getscheduler "
    "sched_get_priority_max sched_get_priority_min getpriority setpriority arch_prctl getcpu "
    "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait rt_sigpending rt_sigsuspend "
    "sigaltstack timer_create timer_settime timer_gettime timer_getoverrun timer_delete "
    /* clocks and questions */
    "clock_gettime clock_getres gettimeofday time times getrusage getrlimit getuid geteuid getgid "
    "getegid getresuid getresgid getgroups uname sysinfo getrandom capget";

/* Nobody gets there by mistake. */
static const char deadly[] =
    "execve execveat process_vm_writev process_madvise pidfd_getfd kcmp "
    "mount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig fsmount fspick "
    "mount_setattr setns unshare bpf perf_event_open userfaultfd io_uring_setup io_uring_enter "
    "io_uring_register init_module finit_module delete_module kexec_load kexec_file_load reboot "
    "swapon swapoff acct quotactl syslog keyctl add_key request_key open_by_handle_at "
    "settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname iopl ioperm "
    "modify_ldt setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid "
    "setfsgid capset";

/* Deadly, too, but that the leak sanitizer stops all threads from a process of its own. */
static const char tracing[] = "ptrace process_vm_readv personality";
static const char for_sanitizers[] =
    "clone wait4 waitid kill tgkill prctl mmap mprotect prlimit64 ioctl";

#define INT 0xffffffff /* all of an int */

/* Allowed when the bits `mask` of an argument are `value`; one of the lines of a call is enough. */
static const struct {
    const char *name;
    unsigned argument;
    uint64_t mask, value;
} conditions[] = {
    { "socket", 0, INT, AF_UNIX },
    { "socket", 0, INT, AF_INET },
    { "socket", 0, INT, AF_INET6 },
    /* No memory that is written is executed. */
    { "mmap", 2, PROT_EXEC, 0 },
    { "mmap", 2, PROT_EXEC | PROT_WRITE, PROT_EXEC },
    { "mprotect", 2, PROT_EXEC, 0 },
    /* Threads, but no processes. */
    { "clone", 0, 0x00010000 /* CLONE_THREAD */, 0x00010000 },
    { "prctl", 0, INT, PR_SET_NAME },
    { "prctl", 0, INT, PR_GET_NAME },
    { "prctl", 0, INT, PR_GET_DUMPABLE },
    { "prctl", 0, INT, PR_GET_NO_NEW_PRIVS },
    { "prctl", 0, INT, PR_GET_SECCOMP },
    { "prctl", 0, INT, 0x53564d41 /* PR_SET_VMA: names of mappings */ },
    { "ioctl", 1, INT, FIONREAD },
    { "ioctl", 1, INT, FIONBIO },
    { "ioctl", 1, INT, TCGETS },
    { "ioctl", 1, INT, TIOCGWINSZ },
    { "ioctl", 1, INT, SIOCGIFINDEX },
    { "ioctl", 1, INT, SIOCGIFNAME },
};

/* ---- refused calls are told ------------------------------------------------------------------- */

static int refused_pipe[2] = { -1, -1 };

#if defined(__x86_64__) || defined(__aarch64__)
static const bool can_tell = true;

static void set_result(ucontext_t *u, long result)
{
#ifdef __x86_64__
    u->uc_mcontext.gregs[REG_RAX] = result;
#else
    u->uc_mcontext.regs[0] = (unsigned long long)result;
#endif
}
#else
static const bool can_tell = false;

static void set_result(ucontext_t *u, long result)
{
}
#endif

/* In the thread that made the call. A full pipe: there are lines enough. */
static void on_refused(int signal, siginfo_t *info, void *context)
{
    int error = errno, number = info->si_syscall;

    set_result(context, -EPERM);
    if (write(refused_pipe[1], &number, sizeof(number)) < 0)
        errno = error;
    errno = error;
}

static int tell_refused(void)
{
    struct sigaction action = { .sa_sigaction = on_refused, .sa_flags = SA_SIGINFO | SA_RESTART };

    if (refused_pipe[0] < 0 && pipe2(refused_pipe, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    return sigaction(SIGSYS, &action, NULL) < 0 ? -errno : 0;
}

int syscalls_refused_fd(void)
{
    return refused_pipe[0];
}

bool syscalls_refused(char *name, size_t size, int *ret_number)
{
    int number;

    if (read(refused_pipe[0], &number, sizeof(number)) != (ssize_t)sizeof(number))
        return false;
    AUTO_FREE char *found = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
    snprintf(name, size, "%s", found ? found : "unknown");
    *ret_number = number;
    return true;
}

/* ---- the filter ------------------------------------------------------------------------------- */

/* Each name of a list. Names that this machine, or this library, does not know are passed over. */
static int add_list(scmp_filter_ctx filter, uint32_t action, const char *names)
{
    struct str rest = str_of(names), one;
    char name[64];

    while (!str_empty(rest)) {
        str_cut(&rest, ' ', &one);
        if (!str_copy(one, name, sizeof(name)))
            return -ENAMETOOLONG;
        int number = seccomp_syscall_resolve_name(name);
        int r = number < 0 ? 0 : seccomp_rule_add(filter, action, number, 0);
        if (r < 0)
            return r;
    }
    return 0;
}

/* That the bits `mask` of an argument are `value`. */
static struct scmp_arg_cmp is(unsigned argument, uint64_t mask, uint64_t value)
{
    return (struct scmp_arg_cmp){
        .arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value
    };
}

static int allow_when(scmp_filter_ctx filter, int number, struct scmp_arg_cmp compare)
{
    return number < 0 ? 0 : seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 1, &compare);
}

static int add_conditions(scmp_filter_ctx filter)
{
    int r = 0;

    for (size_t i = 0; i < ARRAY_LEN(conditions) && r == 0; i++)
        r = allow_when(filter, seccomp_syscall_resolve_name(conditions[i].name),
                       is(conditions[i].argument, conditions[i].mask, conditions[i].value));
    return r;
}

/* Signals and limits: to and of this process only. Netlink: which addresses this machine has, nothing else. */
static int add_own(scmp_filter_ctx filter)
{
    const struct scmp_arg_cmp own = is(0, INT, (uint32_t)getpid());
    const struct scmp_arg_cmp route[] = { is(0, INT, AF_NETLINK), is(2, INT, NETLINK_ROUTE) };
    int r = allow_when(filter, SCMP_SYS(tgkill), own);

    if (r == 0)
        r = allow_when(filter, SCMP_SYS(kill), own);
    if (r == 0)
        r = allow_when(filter, SCMP_SYS(prlimit64), is(0, INT, 0));
    if (r == 0)
        r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2, route);
    return r;
}

static int fill(scmp_filter_ctx filter)
{
    int r = 0;

    if (SANITIZED)
        r = add_list(filter, SCMP_ACT_ALLOW, for_sanitizers);
    if (r == 0)
        r = add_list(filter, SCMP_ACT_ALLOW, allowed);
    if (r == 0)
        r = add_conditions(filter);
    if (r == 0)
        r = add_own(filter);
    /* Its arguments cannot be looked at: the C library then takes clone. */
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (r == 0)
        r = add_list(filter, SCMP_ACT_KILL_PROCESS, deadly);
    if (r == 0)
        r = add_list(filter, SANITIZED ? SCMP_ACT_ALLOW : SCMP_ACT_KILL_PROCESS, tracing);
    return r;
}

int syscalls_confine(const char **ret_why)
{
    if (sizeof(void *) < 8) {
        *ret_why = "the list of system calls is for 64-bit machines only";
        return -EOPNOTSUPP;
    }
    int r = can_tell ? tell_refused() : 0;
    scmp_filter_ctx filter = seccomp_init(can_tell ? SCMP_ACT_TRAP : SCMP_ACT_ERRNO(EPERM));

    if (!filter)
        r = -ENOMEM;
    if (r == 0)
        r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (r == 0)
        r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (r == 0)
        r = fill(filter);
    if (r == 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    if (r < 0)
        *ret_why = r == -ENOMEM ? "out of memory"
                                : "this kernel, or this container, has no seccomp filters";
    return r;
}
