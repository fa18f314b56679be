/* Between a process and its disk: records, fails or delays file operations.
 *
 * Loaded with LD_PRELOAD. It sees every file operation that goes through libc
 * below one directory (RISITI_SHIM_ROOT) and
 *   - appends it to a log (RISITI_SHIM_LOG), in an order that really happened;
 *   - fails it when the control file (RISITI_SHIM_CONTROL) says so;
 *   - delays fsync and fdatasync by as long as the control file says, now.
 * One file (RISITI_SHIM_WITNESS) is recorded but never failed or delayed: what
 * is written there is what the outside world was told.
 *
 * It never invents a success, never touches a file outside the root, and says
 * UNSUPPORTED in the log when something is done that it can't record (shared
 * writable mappings, hard links): the reader of the log refuses such a log.
 *
 * Why C: interposing libc means exporting its symbols with raw pointers, which
 * is unsafe by nature; the workspace forbids unsafe Rust. Real operations are
 * made by syscall(2), so nothing is looked up and nothing recurses (but for the
 * lists of directories, whose buffers are libc's). A process
 * that makes raw system calls itself (rustix without `use-libc`) is not seen;
 * the replay test compares the recording with the directory to notice that.
 *
 * A kill at any moment leaves an exact log. Each operation is made under one
 * lock, which all processes of a recording share (robust, in the log's head):
 * first the intent is noted, then the operation is made, then one store moves
 * `end` over its entry. A process that is killed in between leaves the intent
 * open; the next one to take the lock (in the same or a later process) looks
 * at the directory, before anything else is done there, and enters what really
 * happened, be it half a write. Left open by the last process of a recording,
 * it is not in the log: un-synced and unseen by anyone, it promises nothing.
 *
 * Log, little endian, version 2:
 *   offset size
 *        0    4  magic "RSL2"
 *        4    4  version
 *        8    8  end: bytes of the log that count, head included
 *       16       the intent and the lock (struct head), of no use to a reader
 *    16384       entries, until `end`; what follows is noise
 * Log entry:
 *        0    4  magic "RSH1"
 *        4    4  kind (enum kind)
 *        8    8  inode
 *       16    8  offset (WRITE), new size (SETLEN), else 0
 *       24    8  length of the data that follows the paths (WRITE), else 0
 *       32    4  length of path a (below the root, no leading slash)
 *       36    4  length of path b (RENAME: the new name)
 *       40       path a, path b, data
 *
 * Control file, 64-bit words, native endian; the test writes all but 8..10:
 *   0 magic  1 sync_delay_ms  2 fault_classes  3 fault_first (1-based, 0: none)
 *   4 fault_count  5 fault_errno  6 fault_torn  7 sync_skip
 *   8 matching operations seen  9 faults injected  10 syncs done
 *   11 moment (enum moment) at which to kill the process  12 how many to go
 *   13 forgets what a kill cut short (to show that this would be noticed)
 *   14 a failed sync says that it succeeded  15 syncs of directories are not made
 *      (both: as a wrong store would have it, to show that it is convicted)
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { CREATE = 1, MKDIR, RENAME, UNLINK, RMDIR, WRITE, SETLEN,
            SYNC_BEGIN, SYNC_END, SYNC_FAIL, UNSUPPORTED, START };
/* Of an operation: all that a kill can come between. */
enum moment { NEVER, NOTED, INTENDED, HALF_DONE, DONE, RECORDED };
enum class { C_OPEN = 1, C_WRITE = 2, C_SYNC = 4, C_META = 8, C_RANGE = 16, C_READ = 32 };

struct control {
    uint64_t magic;
    _Atomic uint64_t sync_delay_ms, classes, first, count, error, torn, sync_skip;
    _Atomic uint64_t seen, injected, syncs, moment, to_go, forgetful, deaf, nameless;
};
#define FDS_MAX 65536 /* more descriptors than any test opens; above: not seen */
enum { F_UNSEEN = 0, F_SEEN = 1, F_WITNESS = 2 };
struct entry { uint32_t magic, kind; uint64_t ino, offset, length; uint32_t a, b; };

static struct control no_control, *control = &no_control;
static atomic_uchar fds[FDS_MAX];
static char root[PATH_MAX], witness[PATH_MAX];
static size_t root_len;
#define HEAD_BYTES 16384
struct head {
    uint32_t magic, version;
    _Atomic uint64_t end;
    _Atomic uint64_t open; /* the intent counts while this equals `end` */
    struct entry intent;
    char at[PATH_MAX], to[PATH_MAX]; /* absolute: where to look if it is cut short */
    pthread_mutex_t lock;
};
_Static_assert(sizeof(struct head) <= HEAD_BYTES, "the head has outgrown its place");
static struct head *head; /* null: nothing is recorded */
static int log_fd = -1;
static pthread_mutex_t own_lock = PTHREAD_MUTEX_INITIALIZER, *lock = &own_lock;

static void broken_log(const char *what) { perror(what); _exit(97); }
static void open_log(const char *path);
static void take_lock(void);
static void note(enum kind kind, uint64_t ino, const char *text);
static void free_lock(void) { pthread_mutex_unlock(lock); }

__attribute__((constructor)) static void begin(void) {
    const char *r = getenv("RISITI_SHIM_ROOT"), *l = getenv("RISITI_SHIM_LOG"),
               *c = getenv("RISITI_SHIM_CONTROL"), *w = getenv("RISITI_SHIM_WITNESS");
    if (!r || strlen(r) >= sizeof root) return;
    if (w && strlen(w) < sizeof witness) strcpy(witness, w);
    if (c) {
        int fd = syscall(SYS_openat, AT_FDCWD, c, O_RDWR | O_CLOEXEC, 0);
        void *p = fd < 0 ? MAP_FAILED : (void *)syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) broken_log("shim: control file");
        control = p;
    }
    if (l) open_log(l);
    struct stat s;
    take_lock(); /* what the process before left open is settled here */
    note(START, stat(r, &s) ? 0 : s.st_ino, NULL);
    free_lock();
    strcpy(root, r);
    root_len = strlen(root);
}

static void open_log(const char *path) {
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    log_fd = syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 900); /* out of the way */
    if (log_fd < 0) log_fd = fd; else syscall(SYS_close, fd);
    if (log_fd < 0 || syscall(SYS_flock, log_fd, LOCK_EX)) broken_log("shim: log");
    struct stat s;
    if (fstat(log_fd, &s) || (s.st_size < HEAD_BYTES && syscall(SYS_ftruncate, log_fd, HEAD_BYTES))) broken_log("shim: log");
    void *p = (void *)syscall(SYS_mmap, NULL, HEAD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, log_fd, 0);
    if (p == MAP_FAILED) broken_log("shim: log");
    head = p;
    if (head->magic != 0x324c5352) {
        pthread_mutexattr_t shared;
        pthread_mutexattr_init(&shared);
        pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
        if (pthread_mutex_init(&head->lock, &shared)) broken_log("shim: lock");
        head->version = 2;
        head->end = HEAD_BYTES;
        atomic_thread_fence(memory_order_seq_cst); /* a kill up to here: begun anew */
        head->magic = 0x324c5352;
    }
    lock = &head->lock;
    syscall(SYS_flock, log_fd, LOCK_UN);
}

/* Absolute, without "." and ".." and double slashes; 1 if below the root. */
static int below(int dirfd, const char *path, char *out) {
    char joined[2 * PATH_MAX];
    if (!root_len || !path) return 0;
    if (path[0] == '/') {
        snprintf(joined, sizeof joined, "%s", path);
    } else {
        char base[PATH_MAX], link[64];
        if (dirfd == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
            ssize_t n = readlink(link, base, sizeof base - 1);
            if (n < 0) return 0;
            base[n] = 0;
        }
        snprintf(joined, sizeof joined, "%s/%s", base, path);
    }
    size_t n = 0;
    for (char *save, *part = strtok_r(joined, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
        if (!strcmp(part, ".")) continue;
        if (!strcmp(part, "..")) { while (n && out[--n] != '/') {} continue; }
        if (n + strlen(part) + 2 > PATH_MAX) return 0;
        out[n++] = '/';
        strcpy(out + n, part);
        n += strlen(part);
    }
    out[n] = 0;
    return !strncmp(out, root, root_len) && (out[root_len] == '/' || !out[root_len]);
}

static const char *inside(const char *absolute) {
    return absolute + root_len + (absolute[root_len] == '/');
}
static int is_witness(const char *absolute) { return witness[0] && !strcmp(absolute, witness); }
static int kind_of(int fd) { return fd >= 0 && fd < FDS_MAX ? fds[fd] : F_UNSEEN; }
static void set_kind(int fd, int kind) { if (fd >= 0 && fd < FDS_MAX) fds[fd] = kind; }
static uint64_t ino_of(int fd) { struct stat s; return fstat(fd, &s) ? 0 : s.st_ino; }

/* ---- the log: all of this with the lock held ---- */
static int is_moment(enum moment m) {
    return control->moment == m && atomic_fetch_sub(&control->to_go, 1) == 1;
}
static void die(void) { for (;;) syscall(SYS_kill, getpid(), SIGKILL); }
static void moment(enum moment m) { if (is_moment(m)) die(); }

static void put(const struct iovec *v, int n, uint64_t at) {
    ssize_t all = 0;
    for (int i = 0; i < n; i++) all += v[i].iov_len;
    if (all && syscall(SYS_pwritev, log_fd, v, n, at, 0) != all) broken_log("shim: log");
}
/* The paths and data of `e` are in place: now it counts, and no intent is open. */
static void enter(struct entry e) {
    put(&(struct iovec){ &e, sizeof e }, 1, head->end);
    head->end += sizeof e + e.a + e.b + e.length;
    moment(RECORDED);
}
static void note(enum kind kind, uint64_t ino, const char *text) {
    if (!head) return;
    int saved = errno;
    struct entry e = { 0x31485352, kind, ino, 0, 0, text ? strlen(text) : 0, 0 };
    put(&(struct iovec){ (void *)text, e.a }, 1, head->end + sizeof e);
    enter(e);
    errno = saved;
}
/* Something is about to be done to `at` (a rename: to become `to`). */
static void intend(enum kind kind, uint64_t ino, uint64_t offset, const char *at, const char *to,
                   const struct iovec *data, int parts) {
    if (!head) return;
    int saved = errno, n = 2, named = kind <= RMDIR;
    struct entry e = { 0x31485352, kind, ino, offset, 0, named ? strlen(inside(at)) : 0, to ? strlen(inside(to)) : 0 };
    struct iovec v[2 + 64] = { { (void *)inside(at), e.a }, { (void *)(to ? inside(to) : ""), e.b } };
    for (; parts-- > 0; data++) { v[n++] = *data; e.length += data->iov_len; }
    put(v, n, head->end + sizeof e);
    moment(NOTED);
    head->intent = e;
    strcpy(head->at, at);
    strcpy(head->to, to ? to : "");
    head->open = head->end;
    moment(INTENDED);
    errno = saved;
}
static void happened(uint64_t ino, uint64_t offset, uint64_t length) {
    if (!head) return;
    int saved = errno;
    moment(DONE);
    struct entry e = head->intent;
    e.ino = ino, e.offset = offset, e.length = length;
    enter(e);
    errno = saved;
}
static void came_to_nothing(void) { if (head) head->open = 0; }

/* How many bytes of the intended write are in the file. A kill ends a write
 * between two pages; bytes that were the same before are as good as written. */
static uint64_t written(void) {
    static char meant[1 << 16], found[1 << 16];
    const struct entry *e = &head->intent;
    uint64_t same = 0, data = head->end + sizeof *e + e->a + e->b;
    int fd = syscall(SYS_openat, AT_FDCWD, head->at, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) broken_log("shim: a file that a kill left");
    while (same < e->length) {
        size_t most = e->length - same < sizeof meant ? e->length - same : sizeof meant;
        ssize_t n = syscall(SYS_pread64, fd, found, most, e->offset + same), i = 0;
        if (n <= 0 || syscall(SYS_pread64, log_fd, meant, n, data + same) != n) break;
        while (i < n && meant[i] == found[i]) i++;
        same += i;
        if (i < n) break;
    }
    syscall(SYS_close, fd);
    return same;
}
/* A process was killed with this intent open. Nobody has touched the directory
 * since, as nobody had the lock: so what is there tells what happened. */
static void settle(void) {
    struct entry e = head->intent;
    struct stat at, to;
    int there = !lstat(head->at, &at), same = there && at.st_ino == e.ino, done = 0;
    switch (e.kind) {
    case CREATE: case MKDIR: done = there; e.ino = there ? at.st_ino : 0; break;
    case RENAME: done = !same && !lstat(head->to, &to) && to.st_ino == e.ino; break;
    case UNLINK: case RMDIR: done = !same; break;
    /* Without a name nobody will ever see what is in the file. */
    case WRITE: done = same && (e.length = written()) > 0; break;
    case SETLEN: done = same; e.offset = same ? at.st_size : 0; break;
    }
    if (done && !control->forgetful) enter(e); else came_to_nothing();
}
static void take_lock(void) {
    int error = pthread_mutex_lock(lock), saved = errno;
    if (error == EOWNERDEAD) error = pthread_mutex_consistent(lock);
    if (error) { errno = error; broken_log("shim: lock"); }
    if (head && head->open == head->end) settle();
    errno = saved;
}
static const char *path_of(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, PATH_MAX - 1);
    out[n < 0 ? 0 : n] = 0;
    return out;
}

/* 1 (and errno) if this operation is to fail. */
static int fault(unsigned class) {
    if (!root_len || !(control->classes & class)) return 0;
    uint64_t nth = atomic_fetch_add(&control->seen, 1) + 1, first = control->first;
    if (!first || nth < first || nth - first >= control->count) return 0;
    atomic_fetch_add(&control->injected, 1);
    errno = control->error;
    return 1;
}

/* ---- open ---- */
static int do_open(int dirfd, const char *path, int flags, mode_t mode) {
    char at[PATH_MAX];
    if (!below(dirfd, path, at)) {
        int fd = syscall(SYS_openat, dirfd, path, flags, mode);
        set_kind(fd, F_UNSEEN);
        return fd;
    }
    int wit = is_witness(at);
    if (!wit && fault(C_OPEN)) return -1;
    take_lock();
    struct stat before, after;
    int existed = !syscall(SYS_newfstatat, AT_FDCWD, at, &before, 0), unnamed = (flags & O_TMPFILE) == O_TMPFILE,
        creates = !existed && (flags & O_CREAT), empties = existed && (flags & O_TRUNC) && before.st_size;
    if (unnamed) note(UNSUPPORTED, 0, "O_TMPFILE");
    else if (creates) intend(CREATE, 0, 0, at, 0, 0, 0);
    else if (empties) intend(SETLEN, before.st_ino, 0, at, 0, 0, 0);
    int fd = syscall(SYS_openat, dirfd, path, flags, mode);
    if (fd >= 0) set_kind(fd, wit ? F_WITNESS : F_SEEN);
    if (creates || empties) {
        if (fd >= 0 && !fstat(fd, &after)) happened(after.st_ino, 0, 0); else came_to_nothing();
    }
    free_lock();
    return fd;
}
#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list l; va_start(l, flags); mode = va_arg(l, int); va_end(l); }
int open(const char *p, int flags, ...) { MODE(flags) return do_open(AT_FDCWD, p, flags, mode); }
int open64(const char *p, int flags, ...) { MODE(flags) return do_open(AT_FDCWD, p, flags, mode); }
int openat(int d, const char *p, int flags, ...) { MODE(flags) return do_open(d, p, flags, mode); }
int openat64(int d, const char *p, int flags, ...) { MODE(flags) return do_open(d, p, flags, mode); }
int creat(const char *p, mode_t m) { return do_open(AT_FDCWD, p, O_CREAT | O_WRONLY | O_TRUNC, m); }
int creat64(const char *p, mode_t m) { return creat(p, m); }

/* ---- descriptors ---- */
int close(int fd) { set_kind(fd, F_UNSEEN); return syscall(SYS_close, fd); }
static int copied(int from, int to) { if (to >= 0) set_kind(to, kind_of(from)); return to; }
int dup(int fd) { return copied(fd, syscall(SYS_dup, fd)); }
int dup3(int fd, int to, int flags) { return copied(fd, syscall(SYS_dup3, fd, to, flags)); }
int dup2(int fd, int to) { return fd == to ? to : dup3(fd, to, 0); }
static int do_fcntl(int fd, int cmd, void *arg) {
    int r = syscall(SYS_fcntl, fd, cmd, arg);
    return cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC ? copied(fd, r) : r;
}
int fcntl(int fd, int cmd, ...) { va_list l; va_start(l, cmd); void *a = va_arg(l, void *); va_end(l); return do_fcntl(fd, cmd, a); }
int fcntl64(int fd, int cmd, ...) { va_list l; va_start(l, cmd); void *a = va_arg(l, void *); va_end(l); return do_fcntl(fd, cmd, a); }

/* ---- write ---- */
static ssize_t raw_write(int fd, const struct iovec *v, int n, off64_t at) {
    if (at < 0) return n == 1 ? syscall(SYS_write, fd, v->iov_base, v->iov_len) : syscall(SYS_writev, fd, v, n);
    return n == 1 ? syscall(SYS_pwrite64, fd, v->iov_base, v->iov_len, at) : syscall(SYS_pwritev, fd, v, n, at, 0);
}
static ssize_t do_write(int fd, const struct iovec *v, int n, off64_t at) {
    int seen = kind_of(fd);
    if (!seen) return raw_write(fd, v, n, at);
    struct iovec half;
    int broken = 0;
    if (seen == F_SEEN && fault(C_WRITE)) {
        /* A failed write may have left part of its bytes in the file. */
        broken = control->error; /* 0: the write is short, which is no error */
        if (control->torn && n > 0 && v->iov_len > 1) {
            half = (struct iovec){ v->iov_base, v->iov_len / 2 };
            v = &half;
            n = 1;
        } else if (broken) {
            return -1;
        }
    }
    if (n > 64) n = 64; /* a short write: the caller goes on */
    take_lock();
    char path[PATH_MAX];
    struct stat s;
    off64_t from = at < 0 ? syscall(SYS_lseek, fd, 0, SEEK_CUR) : at;
    if (fstat(fd, &s)) s.st_ino = s.st_size = 0;
    if (syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND) from = s.st_size;
    intend(WRITE, s.st_ino, from, path_of(fd, path), 0, v, n);
    if (is_moment(HALF_DONE)) {
        raw_write(fd, &(struct iovec){ v->iov_base, v->iov_len / 2 }, 1, at);
        die();
    }
    ssize_t done = raw_write(fd, v, n, at);
    if (done > 0) happened(s.st_ino, from, done); else came_to_nothing();
    free_lock();
    if (broken) { errno = broken; return -1; }
    return done;
}
#define ONE(b, n) (&(struct iovec){ (void *)(b), (n) }), 1
ssize_t write(int fd, const void *b, size_t n) { return do_write(fd, ONE(b, n), -1); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t at) { return do_write(fd, ONE(b, n), at); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at) { return do_write(fd, ONE(b, n), at); }
ssize_t writev(int fd, const struct iovec *v, int n) { return do_write(fd, v, n, -1); }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at) { return do_write(fd, v, n, at); }
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t at) { return do_write(fd, v, n, at); }
ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t at, int f) { (void)f; return do_write(fd, v, n, at); }
ssize_t pwritev64v2(int fd, const struct iovec *v, int n, off64_t at, int f) { (void)f; return do_write(fd, v, n, at); }

/* ---- read: not recorded, as nothing comes of it; but a disk can refuse it ---- */
/* ENOENT: a wrong store, which takes what can't be read for nothing, sees the end. */
static int refused(void) { return control->error == ENOENT ? 0 : -1; }
#define READS(fd, call) do { if (kind_of(fd) == F_SEEN && fault(C_READ)) return refused(); return (call); } while (0)
ssize_t read(int fd, void *b, size_t n) { READS(fd, syscall(SYS_read, fd, b, n)); }
ssize_t readv(int fd, const struct iovec *v, int n) { READS(fd, syscall(SYS_readv, fd, v, n)); }
ssize_t pread(int fd, void *b, size_t n, off_t at) { READS(fd, syscall(SYS_pread64, fd, b, n, at)); }
ssize_t pread64(int fd, void *b, size_t n, off64_t at) { return pread(fd, b, n, at); }
ssize_t preadv(int fd, const struct iovec *v, int n, off_t at) { READS(fd, syscall(SYS_preadv, fd, v, n, at, 0)); }
ssize_t preadv64(int fd, const struct iovec *v, int n, off64_t at) { return preadv(fd, v, n, at); }
/* What a file is. Of an open one its inode knows, which is in memory. */
int statx(int d, const char *path, int flags, unsigned mask, struct statx *s) {
    char at[PATH_MAX];
    if ((control->classes & C_READ) && !(flags & AT_EMPTY_PATH) && below(d, path, at) && !is_witness(at) && fault(C_READ)) return -1;
    return syscall(SYS_statx, d, path, flags, mask, s);
}
DIR *opendir(const char *path) { /* inside libc: seen by no C_OPEN */
    char at[PATH_MAX];
    static DIR *(*real)(const char *);
    if (!real) real = (DIR *(*)(const char *))dlsym(RTLD_NEXT, "opendir");
    return below(AT_FDCWD, path, at) && fault(C_READ) ? NULL : real(path);
}
static int unlisted(DIR *dir) {
    char path[PATH_MAX], at[PATH_MAX];
    return (control->classes & C_READ) && below(AT_FDCWD, path_of(dirfd(dir), path), at) && fault(C_READ);
}
struct dirent64 *readdir64(DIR *dir) {
    static struct dirent64 *(*real)(DIR *);
    if (!real) real = (struct dirent64 *(*)(DIR *))dlsym(RTLD_NEXT, "readdir64");
    if (!unlisted(dir)) return real(dir);
    if (!refused()) errno = 0; /* the end of the list */
    return NULL;
}

/* In-kernel copies are refused for seen files; callers fall back to write. */
#define REFUSE(fd, call, code) do { if (kind_of(fd)) { errno = (code); return -1; } return (call); } while (0)
ssize_t copy_file_range(int i, off64_t *io, int o, off64_t *oo, size_t n, unsigned f) { REFUSE(o, syscall(SYS_copy_file_range, i, io, o, oo, n, f), ENOSYS); }
ssize_t sendfile(int o, int i, off_t *at, size_t n) { REFUSE(o, syscall(SYS_sendfile, o, i, at, n), EINVAL); }
ssize_t sendfile64(int o, int i, off64_t *at, size_t n) { REFUSE(o, syscall(SYS_sendfile, o, i, at, n), EINVAL); }
ssize_t splice(int i, off64_t *io, int o, off64_t *oo, size_t n, unsigned f) { REFUSE(o, syscall(SYS_splice, i, io, o, oo, n, f), EINVAL); }

static void unsupported(const char *what) {
    take_lock();
    note(UNSUPPORTED, 0, what);
    free_lock();
}
static void *do_mmap(void *p, size_t n, int prot, int flags, int fd, off64_t at) {
    if ((prot & PROT_WRITE) && (flags & MAP_SHARED) && kind_of(fd)) unsupported("writable shared mapping");
    return (void *)syscall(SYS_mmap, p, n, prot, flags, fd, at);
}
void *mmap(void *p, size_t n, int prot, int flags, int fd, off_t at) { return do_mmap(p, n, prot, flags, fd, at); }
void *mmap64(void *p, size_t n, int prot, int flags, int fd, off64_t at) { return do_mmap(p, n, prot, flags, fd, at); }

/* ---- size ---- */
static void resizing(int fd) {
    char path[PATH_MAX];
    intend(SETLEN, ino_of(fd), 0, path_of(fd, path), 0, 0, 0);
}
static int resized(int fd, long r) {
    struct stat s;
    if (!r && !fstat(fd, &s)) happened(s.st_ino, s.st_size, 0); else came_to_nothing();
    return r;
}
#define SIZED(fd, call) do { \
        if (!kind_of(fd)) return (call); \
        if (kind_of(fd) == F_SEEN && fault(C_META)) return -1; \
        take_lock(); resizing(fd); int r = resized(fd, (call)); free_lock(); return r; \
    } while (0)
int ftruncate(int fd, off_t n) { SIZED(fd, syscall(SYS_ftruncate, fd, n)); }
int ftruncate64(int fd, off64_t n) { SIZED(fd, syscall(SYS_ftruncate, fd, n)); }
int fallocate(int fd, int mode, off_t at, off_t n) {
    if (kind_of(fd) && (mode & ~FALLOC_FL_KEEP_SIZE)) unsupported("fallocate that changes data");
    SIZED(fd, syscall(SYS_fallocate, fd, mode, at, n));
}
int fallocate64(int fd, int mode, off64_t at, off64_t n) { return fallocate(fd, mode, at, n); }
int posix_fallocate(int fd, off_t at, off_t n) { return fallocate(fd, 0, at, n) ? errno : 0; }
int posix_fallocate64(int fd, off64_t at, off64_t n) { return posix_fallocate(fd, at, n); }
int truncate(const char *path, off_t n) {
    int fd = open(path, O_WRONLY | O_CLOEXEC), r = fd < 0 ? -1 : ftruncate(fd, n), saved = errno;
    if (fd >= 0) close(fd);
    errno = saved;
    return r;
}
int truncate64(const char *path, off64_t n) { return truncate(path, n); }

/* ---- sync: what was written before it began is durable when it ended ---- */
static int do_sync(int fd, long call) {
    int seen = kind_of(fd);
    if (!seen) return syscall(call, fd);
    struct stat s;
    if (fstat(fd, &s)) s.st_ino = s.st_mode = 0;
    if (control->nameless && S_ISDIR(s.st_mode)) return 0;
    uint64_t ino = s.st_ino;
    take_lock();
    note(SYNC_BEGIN, ino, NULL);
    free_lock();
    int broken = seen == F_SEEN && fault(C_SYNC);
    /* Re-read each millisecond, so that a test can end the delay. */
    for (uint64_t waited = 0; seen == F_SEEN && waited < control->sync_delay_ms; waited++)
        nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
    int error = broken ? (int)control->error : 0;
    if (!broken && !control->sync_skip && syscall(call, fd)) error = errno;
    take_lock();
    note(error ? SYNC_FAIL : SYNC_END, ino, NULL);
    free_lock();
    atomic_fetch_add(&control->syncs, 1);
    if (!error || control->deaf) return 0;
    errno = error;
    return -1;
}
int fsync(int fd) { return do_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return do_sync(fd, SYS_fdatasync); }
/* Makes nothing durable: it neither commits metadata nor flushes the disk's cache. */
int sync_file_range(int fd, off64_t at, off64_t n, unsigned f) {
    if (kind_of(fd) == F_SEEN && fault(C_RANGE)) return -1;
    return kind_of(fd) && control->sync_skip ? 0 : syscall(SYS_sync_file_range, fd, at, n, f);
}
int syncfs(int fd) { if (kind_of(fd)) unsupported("syncfs"); return syscall(SYS_syncfs, fd); }

/* ---- names ---- */
static int do_rename(int d, const char *from, int e, const char *to, unsigned flags) {
    char a[PATH_MAX], b[PATH_MAX];
    int ia = below(d, from, a), ib = below(e, to, b);
    if (!ia && !ib) return syscall(SYS_renameat2, d, from, e, to, flags);
    if (ia != ib || (flags & ~RENAME_NOREPLACE)) unsupported("rename across the root or exchange");
    if (fault(C_META)) return -1;
    take_lock();
    struct stat s;
    int there = !lstat(a, &s);
    if (there) intend(RENAME, s.st_ino, 0, a, b, 0, 0);
    int r = syscall(SYS_renameat2, d, from, e, to, flags);
    if (there && !r) happened(s.st_ino, 0, 0); else came_to_nothing();
    free_lock();
    return r;
}
int rename(const char *a, const char *b) { return do_rename(AT_FDCWD, a, AT_FDCWD, b, 0); }
int renameat(int d, const char *a, int e, const char *b) { return do_rename(d, a, e, b, 0); }
int renameat2(int d, const char *a, int e, const char *b, unsigned f) { return do_rename(d, a, e, b, f); }

static int do_unlink(int d, const char *path, int flags) {
    char at[PATH_MAX];
    if (!below(d, path, at)) return syscall(SYS_unlinkat, d, path, flags);
    if (fault(C_META)) return -1;
    take_lock();
    struct stat s;
    int there = !lstat(at, &s);
    if (there) intend(flags & AT_REMOVEDIR ? RMDIR : UNLINK, s.st_ino, 0, at, 0, 0, 0);
    int r = syscall(SYS_unlinkat, d, path, flags);
    if (there && !r) happened(s.st_ino, 0, 0); else came_to_nothing();
    free_lock();
    return r;
}
int unlink(const char *p) { return do_unlink(AT_FDCWD, p, 0); }
int unlinkat(int d, const char *p, int flags) { return do_unlink(d, p, flags); }
int rmdir(const char *p) { return do_unlink(AT_FDCWD, p, AT_REMOVEDIR); }
int remove(const char *p) { return unlink(p) && errno == EISDIR ? rmdir(p) : 0; }

static int do_mkdir(int d, const char *path, mode_t mode) {
    char at[PATH_MAX];
    if (!below(d, path, at)) return syscall(SYS_mkdirat, d, path, mode);
    if (fault(C_META)) return -1;
    take_lock();
    struct stat s;
    int there = !stat(at, &s);
    if (!there) intend(MKDIR, 0, 0, at, 0, 0, 0);
    int r = syscall(SYS_mkdirat, d, path, mode);
    if (!there && !r && !stat(at, &s)) happened(s.st_ino, 0, 0); else came_to_nothing();
    free_lock();
    return r;
}
int mkdir(const char *p, mode_t m) { return do_mkdir(AT_FDCWD, p, m); }
int mkdirat(int d, const char *p, mode_t m) { return do_mkdir(d, p, m); }
static int do_link(int d, const char *a, int e, const char *b, int flags) {
    char at[PATH_MAX];
    if (below(e, b, at)) unsupported("hard link");
    return syscall(SYS_linkat, d, a, e, b, flags);
}
int link(const char *a, const char *b) { return do_link(AT_FDCWD, a, AT_FDCWD, b, 0); }
int linkat(int d, const char *a, int e, const char *b, int f) { return do_link(d, a, e, b, f); }
