/* What a confined process can still do. Each case is a child that enters the sandbox for good. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <linux/netlink.h>
#include <pthread.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/landlock.h"
#include "daemon/sandbox.h"
#include "daemon/syscalls.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static char folder[64];

static void in_folder(const char *name, char *path, size_t size)
{
    snprintf(path, size, "%s/%s", folder, name);
}

static void write_file(const char *name, const char *text)
{
    char path[128];

    in_folder(name, path, sizeof(path));
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int make_world(void **state)
{
    char path[128], text[512];

    snprintf(folder, sizeof(folder), "/tmp/tern-sandbox-XXXXXX");
    assert_non_null(mkdtemp(folder));
    in_folder("conf", path, sizeof(path));
    assert_int_equal(mkdir(path, 0700), 0);
    in_folder("other", path, sizeof(path));
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(text, sizeof(text),
             "return { hostname = 'mx.example', spool = '%s/spool', listen = '127.0.0.1:2525',\n"
             "  auth = { passwords = 'users' } }",
             folder);
    write_file("conf/tern.lua", text);
    write_file("conf/users", "");
    write_file("other/file", "");
    return 0;
}

static int remove_world(void **state)
{
    const char *const files[] = { "conf/tern.lua", "conf/users", "conf", "other/file",
                                  "other",         "spool/new",  "spool" };
    char path[128];

    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        in_folder(files[i], path, sizeof(path));
        remove(path);
    }
    return rmdir(folder);
}

/* In the child: what it exits with, when it lives so long. */
typedef int in_sandbox(struct sandbox *s);

static struct sandbox *enter(void)
{
    struct policy_source *source;
    struct settings *settings;
    struct policy_error err;
    struct identity id;
    struct sandbox *s;
    struct failure f;
    char path[128];

    in_folder("conf/tern.lua", path, sizeof(path));
    if (policy_load(path, &(struct policy_options){ 0 }, &source, &settings, &err) < 0 ||
        identity_find(getpwuid(geteuid())->pw_name, STR_NONE, &id, &f) < 0 ||
        privileges_drop(&id, false, &f) < 0 || sandbox_new(settings, source, &id, &s, &f) < 0)
        _exit(99);
    return s;
}

/* The status of waitpid. */
static int confined(in_sandbox *what)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(what(enter()));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

#define assert_lives(what)                                                                         \
    do {                                                                                           \
        int status_ = confined(what);                                                              \
        assert_true(WIFEXITED(status_));                                                           \
        assert_int_equal(WEXITSTATUS(status_), 0);                                                 \
    } while (0)

#define assert_dies(what)                                                                          \
    do {                                                                                           \
        int status_ = confined(what);                                                              \
        assert_true(WIFSIGNALED(status_));                                                         \
        assert_int_equal(WTERMSIG(status_), SIGSYS);                                               \
    } while (0)

/* ---- files ------------------------------------------------------------------------------------ */

/* 0, or the errno of the refusal. */
static int try_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);

    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

static int try_in_folder(const char *name, int flags)
{
    char path[128];

    in_folder(name, path, sizeof(path));
    return try_open(path, flags);
}

/* What certificates of hosts are verified with, behind some symbolic links. */
static int reads_authorities(struct sandbox *s)
{
    static const char *const paths[] = { "/etc/ssl/certs/ca-certificates.crt",
                                         "/etc/ssl/certs/ISRG_Root_X1.pem", "/usr/lib/ssl/certs",
                                         "/etc/resolv.conf", "/etc/localtime" };

    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        if (access(paths[i], F_OK) == 0 && try_open(paths[i], O_RDONLY) != 0)
            return 1 + (int)i;
    return 0;
}

static int reads_and_writes_its_own(struct sandbox *s)
{
    return try_in_folder("conf/tern.lua", O_RDONLY) || try_in_folder("conf/users", O_RDONLY) ||
           try_in_folder("spool/new", O_RDWR | O_CREAT) || try_open("/dev/null", O_RDWR) ||
           try_open("/etc/hosts", O_RDONLY) || try_open("/proc/self/maps", O_RDONLY);
}

static int nothing_else(struct sandbox *s)
{
    static const char *const closed[] = { "/etc/shadow", "/etc/passwd",     "/root", "/",
                                          "/bin/sh",     "/proc/1/environ", "/tmp" };

    for (size_t i = 0; i < ARRAY_LEN(closed); i++)
        if (try_open(closed[i], O_RDONLY) != EACCES)
            return 1 + (int)i;
    if (try_in_folder("other/file", O_RDONLY) != EACCES)
        return 20;
    if (try_in_folder("conf/new", O_RDWR | O_CREAT) != EACCES)
        return 21;
    if (try_in_folder("conf/tern.lua", O_WRONLY) != EACCES)
        return 22;
    return try_open("/tmp/tern-sandbox-new", O_RDWR | O_CREAT) == EACCES ? 0 : 23;
}

static void *open_shadow(void *arg)
{
    *(int *)arg = try_open("/etc/shadow", O_RDONLY);
    return NULL;
}

static int threads_have_it(struct sandbox *s)
{
    pthread_t thread;
    int error = 0;

    if (pthread_create(&thread, NULL, open_shadow, &error) != 0)
        return 1;
    pthread_join(thread, NULL);
    return error == EACCES ? 0 : 2;
}

static bool has_landlock(void)
{
    const char *why;
    return landlock_version(&why) > 0;
}

static void files_are_confined(void **state)
{
    if (!has_landlock())
        skip();
    assert_lives(reads_and_writes_its_own);
    assert_lives(reads_authorities);
    assert_lives(nothing_else);
    assert_lives(threads_have_it);
}

/* ---- reloads ---------------------------------------------------------------------------------- */

static int reload_within(struct sandbox *s)
{
    struct settings *set = settings_new();
    char path[128];
    struct failure f;

    in_folder("conf/new.pem", path, sizeof(path)); /* not there yet: whoever reads it says so */
    set->tls_cert = str_of(path);
    return sandbox_check(s, set, &f);
}

static int reload_outside(struct sandbox *s)
{
    struct settings *set = settings_new();
    char path[128];
    struct failure f;

    in_folder("other/file", path, sizeof(path));
    set->tls_key = str_of(path);
    if (sandbox_check(s, set, &f) == 0)
        return 1;
    return strstr(f.text, "'tls.key' is /tmp/") && strstr(f.text, "restart") ? 0 : 2;
}

static int log_outside(struct sandbox *s)
{
    struct settings *set = settings_new();
    struct failure f;

    set->log = STR("/var/log/tern.log");
    return sandbox_check(s, set, &f) < 0 && strstr(f.text, "'log'") ? 0 : 1;
}

static int policies_outside(struct sandbox *s)
{
    struct failure f = { .text = "cannot read it" };
    struct buf text;
    char path[128];

    in_folder("other/file", path, sizeof(path));
    const struct policy_files *files = sandbox_files(s);
    buf_init(&text, 100);
    if (files->read(files, path, false, &text) != -EACCES)
        return 1;
    sandbox_explain(s, &f);
    return strstr(f.text, "cannot read it; /tmp/") && strstr(f.text, "restart") ? 0 : 2;
}

static void reloads_stay_within(void **state)
{
    if (!has_landlock())
        skip();
    assert_lives(reload_within);
    assert_lives(reload_outside);
    assert_lives(log_outside);
    assert_lives(policies_outside);
}

/* ---- system calls ----------------------------------------------------------------------------- */

static int runs_a_program(struct sandbox *s)
{
    char name[] = "true", *argv[] = { name, NULL };
    char *env[] = { NULL };

    execve("/bin/true", argv, env);
    return 1;
}

static int mounts(struct sandbox *s)
{
    mount("none", "/tmp", "tmpfs", 0, NULL);
    return 1;
}

static int leaves_its_namespace(struct sandbox *s)
{
    unshare(CLONE_NEWUSER);
    return 1;
}

static int becomes_root(struct sandbox *s)
{
    return setuid(0) + 2;
}

static int traces(struct sandbox *s)
{
    ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
    return 1;
}

static void some_calls_are_the_end(void **state)
{
    assert_dies(runs_a_program);
    assert_dies(mounts);
    assert_dies(leaves_its_namespace);
    assert_dies(becomes_root);
    if (!SANITIZED)
        assert_dies(traces);
}

static bool told(const char *name)
{
    char found[64];
    int number;

    return syscalls_refused(found, sizeof(found), &number) && strcmp(found, name) == 0;
}

static int others_are_refused(struct sandbox *s)
{
    if (socket(AF_VSOCK, SOCK_STREAM, 0) >= 0 || errno != EPERM || !told("socket"))
        return 1;
    if (socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT) >= 0 || errno != EPERM || !told("socket"))
        return 5;
    if (!SANITIZED && (kill(getppid(), 0) == 0 || errno != EPERM || !told("kill")))
        return 2;
    if (sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){ 0 }) == 0 || errno != EPERM ||
        !told("sched_setscheduler"))
        return 3;
    return told("anything") ? 4 : 0;
}

static int forks(struct sandbox *s)
{
    if (SANITIZED)
        return 0;
    return fork() < 0 && errno == EPERM ? 0 : 1;
}

static int executes_what_it_wrote(struct sandbox *s)
{
    if (SANITIZED)
        return 0;
    void *p =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p != MAP_FAILED || errno != EPERM)
        return 1;
    p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return 2;
    return mprotect(p, 4096, PROT_READ | PROT_EXEC) < 0 && errno == EPERM ? 0 : 3;
}

static void other_calls_fail_and_are_told(void **state)
{
    assert_lives(others_are_refused);
    assert_lives(forks);
    assert_lives(executes_what_it_wrote);
}

static bool landlock_is_there;

static int works(struct sandbox *s)
{
    int pair[2];

    return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 || socket(AF_INET, SOCK_DGRAM, 0) < 0 ||
           socket(AF_INET6, SOCK_STREAM, 0) < 0 ||
           socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) < 0 || raise(0) != 0 ||
           strncmp(sandbox_text(s), landlock_is_there ? "landlock" : "seccomp", 7) != 0;
}

static void what_it_needs_works(void **state)
{
    landlock_is_there = has_landlock();
    assert_lives(works);
}

/* ---- privileges ------------------------------------------------------------------------------- */

static int becomes_nobody(void)
{
    struct identity id;
    struct rlimit core;
    struct failure f;

    if (identity_find(NULL, STR("nobody"), &id, &f) < 0 || !id.changes || id.stays_root ||
        privileges_drop(&id, false, &f) < 0)
        return 1;
    if (getuid() != id.uid || geteuid() != id.uid || getgid() != id.gid || setuid(0) == 0 ||
        setgid(0) == 0 || open("/etc/shadow", O_RDONLY) >= 0)
        return 2;
    return getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_cur == 0 ? 0 : 3;
}

static void root_becomes_another(void **state)
{
    int status;

    if (geteuid() != 0)
        skip();
    pid_t pid = fork();
    if (pid == 0)
        _exit(becomes_nobody());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void users_are_checked(void **state)
{
    struct identity id;
    struct failure f;

    assert_int_equal(identity_find("no-such-user", STR_NONE, &id, &f), -1);
    if (geteuid() == 0) {
        assert_non_null(strstr(f.text, "useradd"));
        assert_int_equal(identity_find("root", STR("nobody"), &id, &f), 0);
        assert_true(id.stays_root);
    } else {
        assert_non_null(strstr(f.text, "only root can become another user"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_confined),     cmocka_unit_test(reloads_stay_within),
        cmocka_unit_test(some_calls_are_the_end), cmocka_unit_test(other_calls_fail_and_are_told),
        cmocka_unit_test(what_it_needs_works),    cmocka_unit_test(root_becomes_another),
        cmocka_unit_test(users_are_checked),
    };

    return cmocka_run_group_tests(tests, make_world, remove_world);
}
