/* Preloaded into a process (LD_PRELOAD): logs its calls on files under one folder, and spoils the one that was named.
 *
 *     cc -shared -fPIC -o shim.so shim.c -ldl
 *
 * fault_setup(root, spec, log) starts it: called by the process, or at its start with FAULT_ROOT, FAULT_SPEC, FAULT_LOG.
 * A spec is "MASK N ACTION VALUE": MASK is the sum of the kinds that are counted, N the call meant, from 1, and ACTION
 *
 *     n            nothing is spoiled          e ERRNO   the N-th fails and is not done
 *     s SIGNAL     comes before the N-th       E ERRNO   and so do all after it
 *     h            half of the N-th write is done, and the call says so
 *     t            half of the N-th write is done, then SIGKILL comes
 *     f            the disk is full: half of the N-th write is done; then and later what needs room fails with ENOSPC
 *     c            nothing is spoiled, and what each fsync makes safe is copied to LOG.1, LOG.2, ...
 *
 * A line of the log is: kind, outcome (ok, ok and the copy's number, the errno, or the action and !), path, new path.
 * Calls inside the C library itself are not seen: of streams fopen, fwrite and fclose are, of a directory its opening.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN, WRITE, FSYNC, RENAME, MKDIR, UNLINK, TRUNCATE, LINK, CLOSE, LOCK, READ_OPEN, READ, LIST };
static const char *NAMES[] = { "open", "write", "fsync", "rename", "mkdir", "unlink", "truncate", "link", "close",
                               "lock", "read-open", "read", "list" };
enum verdict { UNSEEN, GO_ON, FAIL, HALF, HALF_AND_DIE };

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) *(void **)&real = dlsym(RTLD_NEXT, name)

static char root[PATH_MAX], log_path[PATH_MAX];
static int mask, log_file = -1, copies;
static long target, count, value;
static char action = 'n';

static int real_open(const char *path, int flags)
{
    REAL(int, "open64", const char *, int, ...);
    return real(path, flags, 0600);
}

static ssize_t real_write(int fd, const void *bytes, size_t n)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    return real(fd, bytes, n);
}

static int real_close(int fd)
{
    REAL(int, "close", int);
    return real(fd);
}

void fault_setup(const char *folder, const char *spec, const char *log)
{
    int fd = real_open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC);
    log_file = fcntl(fd, F_DUPFD_CLOEXEC, 700); /* out of the way */
    real_close(fd);
    strncpy(log_path, log, sizeof log_path - 20);
    if (log_file < 0 || !realpath(folder, root) || sscanf(spec, "%d %ld %c %ld", &mask, &target, &action, &value) < 3)
        _exit(99);
    count = copies = 0;
}

__attribute__((constructor)) static void from_environment(void)
{
    if (getenv("FAULT_SPEC")) fault_setup(getenv("FAULT_ROOT"), getenv("FAULT_SPEC"), getenv("FAULT_LOG"));
    unsetenv("FAULT_SPEC"); /* a child of the process is not counted */
}

/* ------------------------------------------------------------------------------------------ which file, what to do */

static int inside(const char *path)
{
    size_t n = strlen(root);
    return n && !strncmp(path, root, n) && (path[n] == '/' || !path[n]);
}

/* The path of a descriptor; a deleted file has " (deleted)" behind it. */
static const char *of_descriptor(int fd, char *out)
{
    char link[64];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = log_file < 0 ? -1 : readlink(link, out, PATH_MAX - 1);
    out[n < 0 ? 0 : n] = 0;
    errno = before;
    return out;
}

/* An absolute path without symbolic links in its folders; the last part is left as it is. */
static const char *absolute(int dir, const char *path, char *out)
{
    char joined[2 * PATH_MAX + 2], folder[PATH_MAX];
    int before = errno;
    out[0] = 0;
    if (log_file < 0) return out;
    if (path[0] == '/') snprintf(joined, sizeof joined, "%s", path);
    else {
        if (dir == AT_FDCWD) { if (!getcwd(folder, sizeof folder)) folder[0] = 0; }
        else of_descriptor(dir, folder);
        snprintf(joined, sizeof joined, "%s/%s", folder, path);
    }
    size_t n = strlen(joined);
    while (n > 1 && joined[n - 1] == '/') joined[--n] = 0;
    char *last = strrchr(joined, '/');
    *last = 0;
    if (!strcmp(last + 1, ".") || !strcmp(last + 1, "..") || !realpath(last > joined ? joined : "/", folder)) {
        *last = '/';
        snprintf(out, PATH_MAX, "%.*s", PATH_MAX - 1, joined);
    } else snprintf(out, PATH_MAX, "%.*s/%.*s", PATH_MAX / 2, folder, PATH_MAX / 2 - 2, last + 1);
    errno = before;
    return out;
}

static void note(int kind, const char *outcome, const char *p, const char *q)
{
    char line[2 * PATH_MAX + 100];
    int before = errno, n = snprintf(line, sizeof line, "%s\t%s\t%s\t%s\n", NAMES[kind], outcome, p, q ? q : "");
    (void)!real_write(log_file, line, n);
    errno = before;
}

static enum verdict judge(int kind, const char *p, const char *q)
{
    int before = errno;
    if (log_file < 0 || !(inside(p) || (q && inside(q)))) return UNSEEN;
    if (!(mask & 1 << kind)) return GO_ON;
    long n = __sync_add_and_fetch(&count, 1);
    int later = n > target && (action == 'E' || action == 'f');
    if (action == 'n' || action == 'c' || (n != target && !later)) return GO_ON;
    char outcome[3] = { action, '!', 0 };
    note(kind, outcome, p, q);
    errno = before;
    if (action == 's') raise(value);
    if (action == 's' || (action == 'h' && kind != WRITE)) return GO_ON;
    if (action == 'h' || (action == 'f' && kind == WRITE && !later)) return HALF;
    if (action == 't') return HALF_AND_DIE;
    errno = action == 'f' ? ENOSPC : value;
    return FAIL;
}

/* Copies what an fsync has made safe; the copy's number, or 0. */
static int copy(int fd)
{
    char name[PATH_MAX + 20], bytes[65536], link[64];
    struct stat s;
    if (action != 'c' || fstat(fd, &s) || !S_ISREG(s.st_mode)) return 0;
    snprintf(name, sizeof name, "%s.%d", log_path, ++copies);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int from = real_open(link, O_RDONLY), to = real_open(name, O_WRONLY | O_CREAT | O_TRUNC);
    REAL(ssize_t, "read", int, void *, size_t);
    for (ssize_t n; (n = real(from, bytes, sizeof bytes)) > 0;) (void)!real_write(to, bytes, n);
    real_close(from);
    real_close(to);
    return copies;
}

static void done(enum verdict v, int kind, const char *p, const char *q, int failed, int number)
{
    char outcome[32] = "ok";
    if (v != GO_ON) return; /* UNSEEN, or noted already */
    if (failed) snprintf(outcome, sizeof outcome, "%d", errno);
    else if (number) snprintf(outcome, sizeof outcome, "ok %d", number);
    note(kind, outcome, p, q);
}

/* ------------------------------------------------------------------------------------------------------- the calls */

/* Judge a call, make it (CALL), note it, return what it returned. P and Q hold the paths. */
#define GUARDED(type, kind, p, q, failure, CALL) \
    enum verdict verdict = judge(kind, p, q); \
    if (verdict == FAIL) return failure; \
    type result = CALL; \
    done(verdict, kind, p, q, result == failure, 0); \
    return result

static int opening(int flags) { return flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC) ? OPEN : flags & O_DIRECTORY ? LIST : READ_OPEN; }

#define MODE int mode = 0; if (flags & (O_CREAT | __O_TMPFILE)) { va_list a; va_start(a, flags); mode = va_arg(a, int); va_end(a); }

#define DEFINE_OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        char p[PATH_MAX]; MODE \
        REAL(int, #name, const char *, int, ...); \
        GUARDED(int, opening(flags), absolute(AT_FDCWD, path, p), NULL, -1, real(path, flags, mode)); \
    }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

#define DEFINE_OPENAT(name) \
    int name(int dir, const char *path, int flags, ...) \
    { \
        char p[PATH_MAX]; MODE \
        REAL(int, #name, int, const char *, int, ...); \
        GUARDED(int, opening(flags), absolute(dir, path, p), NULL, -1, real(dir, path, flags, mode)); \
    }
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

int __open_2(const char *path, int flags) { return open(path, flags); }
int __open64_2(const char *path, int flags) { return open64(path, flags); }
int __openat_2(int dir, const char *path, int flags) { return openat(dir, path, flags); }
int __openat64_2(int dir, const char *path, int flags) { return openat64(dir, path, flags); }
int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open64(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

#define DEFINE_FOPEN(name) \
    FILE *name(const char *path, const char *how) \
    { \
        char p[PATH_MAX]; \
        REAL(FILE *, #name, const char *, const char *); \
        int kind = how[0] == 'r' && !strchr(how, '+') ? READ_OPEN : OPEN; \
        GUARDED(FILE *, kind, absolute(AT_FDCWD, path, p), NULL, NULL, real(path, how)); \
    }
DEFINE_FOPEN(fopen)
DEFINE_FOPEN(fopen64)

/* A write by CALL, of n bytes (or of items: whatever n counts). */
#define WRITING(fd, CALL, failure) \
    char p[PATH_MAX]; \
    enum verdict verdict = judge(WRITE, of_descriptor(fd, p), NULL); \
    if (verdict == FAIL) return failure; \
    if (verdict >= HALF) n = (n + 1) / 2; \
    ssize_t result = CALL; \
    if (verdict == HALF_AND_DIE) { fflush(NULL); raise(SIGKILL); } \
    done(verdict, WRITE, p, NULL, result == failure, 0); \
    return result

ssize_t write(int fd, const void *bytes, size_t n) { WRITING(fd, real_write(fd, bytes, n), -1); }

#define DEFINE_PWRITE(name, off) \
    ssize_t name(int fd, const void *bytes, size_t n, off at) \
    { \
        REAL(ssize_t, #name, int, const void *, size_t, off); \
        WRITING(fd, real(fd, bytes, n, at), -1); \
    }
DEFINE_PWRITE(pwrite, off_t)
DEFINE_PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int n)
{
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    WRITING(fd, real(fd, parts, n), -1);
}

size_t fwrite(const void *bytes, size_t size, size_t n, FILE *f)
{
    REAL(size_t, "fwrite", const void *, size_t, size_t, FILE *);
    if (action == 'h') return real(bytes, size, n, f); /* it writes on by itself, and is short only where it failed */
    WRITING(fileno(f), (ssize_t)real(bytes, size, n, f), 0);
}

#define DEFINE_SENDFILE(name, off) \
    ssize_t name(int fd, int from, off *at, size_t n) \
    { \
        REAL(ssize_t, #name, int, int, off *, size_t); \
        WRITING(fd, real(fd, from, at, n), -1); \
    }
DEFINE_SENDFILE(sendfile, off_t)
DEFINE_SENDFILE(sendfile64, off64_t)

ssize_t copy_file_range(int from, off64_t *a, int fd, off64_t *b, size_t n, unsigned flags)
{
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    WRITING(fd, real(from, a, fd, b, n, flags), -1);
}

/* Never done in earnest: a killed process loses nothing that it wrote, and no call is slower. */
static int syncing(int fd)
{
    char p[PATH_MAX];
    enum verdict verdict = judge(FSYNC, of_descriptor(fd, p), NULL);
    if (verdict == FAIL) return -1;
    int result = fcntl(fd, F_GETFD) < 0 ? -1 : 0;
    done(verdict, FSYNC, p, NULL, result, verdict == GO_ON && !result ? copy(fd) : 0);
    return result;
}
int fsync(int fd) { return syncing(fd); }
int fdatasync(int fd) { return syncing(fd); }

static int renaming(int d, const char *from, int e, const char *to, unsigned flags)
{
    char p[PATH_MAX], q[PATH_MAX];
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    GUARDED(int, RENAME, absolute(d, from, p), absolute(e, to, q), -1, real(d, from, e, to, flags));
}
int rename(const char *a, const char *b) { return renaming(AT_FDCWD, a, AT_FDCWD, b, 0); }
int renameat(int d, const char *a, int e, const char *b) { return renaming(d, a, e, b, 0); }
int renameat2(int d, const char *a, int e, const char *b, unsigned flags) { return renaming(d, a, e, b, flags); }

int linkat(int d, const char *from, int e, const char *to, int flags)
{
    char p[PATH_MAX], q[PATH_MAX];
    REAL(int, "linkat", int, const char *, int, const char *, int);
    GUARDED(int, LINK, absolute(d, from, p), absolute(e, to, q), -1, real(d, from, e, to, flags));
}
int link(const char *a, const char *b) { return linkat(AT_FDCWD, a, AT_FDCWD, b, 0); }

int symlinkat(const char *to, int d, const char *path)
{
    char p[PATH_MAX];
    REAL(int, "symlinkat", const char *, int, const char *);
    GUARDED(int, LINK, absolute(d, path, p), NULL, -1, real(to, d, path));
}
int symlink(const char *to, const char *path) { return symlinkat(to, AT_FDCWD, path); }

int mkdirat(int d, const char *path, mode_t mode)
{
    char p[PATH_MAX];
    REAL(int, "mkdirat", int, const char *, mode_t);
    GUARDED(int, MKDIR, absolute(d, path, p), NULL, -1, real(d, path, mode));
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int unlinkat(int d, const char *path, int flags)
{
    char p[PATH_MAX];
    REAL(int, "unlinkat", int, const char *, int);
    GUARDED(int, UNLINK, absolute(d, path, p), NULL, -1, real(d, path, flags));
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) { int n = unlink(path); return n && errno == EISDIR ? rmdir(path) : n; }

#define DEFINE_TRUNCATE(name, off) \
    int f##name(int fd, off n) \
    { \
        char p[PATH_MAX]; \
        REAL(int, "f" #name, int, off); \
        GUARDED(int, TRUNCATE, of_descriptor(fd, p), NULL, -1, real(fd, n)); \
    } \
    int name(const char *path, off n) \
    { \
        char p[PATH_MAX]; \
        REAL(int, #name, const char *, off); \
        GUARDED(int, TRUNCATE, absolute(AT_FDCWD, path, p), NULL, -1, real(path, n)); \
    }
DEFINE_TRUNCATE(truncate, off_t)
DEFINE_TRUNCATE(truncate64, off64_t)

int flock(int fd, int how)
{
    char p[PATH_MAX];
    REAL(int, "flock", int, int);
    GUARDED(int, LOCK, of_descriptor(fd, p), NULL, -1, real(fd, how));
}

#define DEFINE_FCNTL(name) \
    int name(int fd, int command, ...) \
    { \
        char p[PATH_MAX]; \
        va_list a; va_start(a, command); void *argument = va_arg(a, void *); va_end(a); \
        REAL(int, #name, int, int, ...); \
        if (command != F_SETLK && command != F_SETLKW && command != F_OFD_SETLK && command != F_OFD_SETLKW) \
            return real(fd, command, argument); \
        GUARDED(int, LOCK, of_descriptor(fd, p), NULL, -1, real(fd, command, argument)); \
    }
DEFINE_FCNTL(fcntl)
DEFINE_FCNTL(fcntl64)

/* Closing what was written can bring a late error (NFS, quotas); the descriptor is gone all the same. */
int close(int fd)
{
    char p[PATH_MAX];
    int flags = fcntl(fd, F_GETFL);
    if (flags == -1 || (flags & O_ACCMODE) == O_RDONLY) return real_close(fd);
    enum verdict verdict = judge(CLOSE, of_descriptor(fd, p), NULL);
    int before = errno, result = real_close(fd);
    if (verdict == FAIL) errno = before, result = -1;
    done(verdict, CLOSE, p, NULL, result, 0);
    return result;
}

int fclose(FILE *f)
{
    char p[PATH_MAX];
    REAL(int, "fclose", FILE *);
    int flags = fcntl(fileno(f), F_GETFL);
    if (flags == -1 || (flags & O_ACCMODE) == O_RDONLY) return real(f);
    enum verdict verdict = judge(CLOSE, of_descriptor(fileno(f), p), NULL);
    int before = errno, result = real(f);
    if (verdict == FAIL) errno = before, result = EOF;
    done(verdict, CLOSE, p, NULL, result, 0);
    return result;
}

ssize_t read(int fd, void *bytes, size_t n)
{
    char p[PATH_MAX];
    REAL(ssize_t, "read", int, void *, size_t);
    GUARDED(ssize_t, READ, of_descriptor(fd, p), NULL, -1, real(fd, bytes, n));
}

DIR *opendir(const char *path)
{
    char p[PATH_MAX];
    REAL(DIR *, "opendir", const char *);
    GUARDED(DIR *, LIST, absolute(AT_FDCWD, path, p), NULL, NULL, real(path));
}

DIR *fdopendir(int fd)
{
    char p[PATH_MAX];
    REAL(DIR *, "fdopendir", int);
    GUARDED(DIR *, LIST, of_descriptor(fd, p), NULL, NULL, real(fd));
}
