/* A disk that fails on demand and remembers what was flushed: loaded before libc with LD_PRELOAD.

It stands between one process and the files below one folder, and knows two arts:

1. Errors. A control page, shared with the test by mmap, says which classes of calls fail, with what error, for
   which files, after how many bytes and how often. It is looked at in every call, so that a disk can fill up and
   get well again while the process runs.
2. A journal. What changes a file is written down before it is done, with the bytes that it overwrites; what
   changes a folder right after; a flush at its begin and, if it succeeded, at its end. So the test knows of
   every byte whether it was on the disk when the process died, and can undo what was not. A file that loses its
   last name gets one in a grave folder first. A record is one write(2) in append mode: SIGKILL leaves whole ones.

Calls go to the kernel by number: nothing here depends on who else stands before libc. Who the file is, the kernel
says (/proc/self/fd): descriptors are not tracked, so a renamed or inherited one cannot be mistaken. What is mapped
into memory is not seen; SQLite maps only its -shm, which no power cut leaves behind.

The environment is cleaned before main runs: programs that the process starts are not touched. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The classes of calls; faulty_disk.py has the same numbers. */
enum { WRITE = 1, GROW = 2, SYNC = 4, CREATE = 8, REMOVE = 16, TRUNCATE = 32, READ = 64, OPEN = 128, ATTRIBUTE = 256 };

/* The control page; faulty_disk.py has the same layout. */
struct control {
    uint32_t classes; /* what fails; 0 is a healthy disk; set last */
    int32_t error;    /* errno of the failure */
    int64_t bytes;    /* what may be written before writes fail */
    int64_t times;    /* failures before the disk is well again; negative: for ever */
    uint64_t refused; /* failures so far */
    char only[1024];  /* patterns, one per line, of paths relative to the folder; empty: every file */
};

/* What a record begins with; faulty_disk.py has the same layout. */
struct head {
    uint64_t size; /* of the whole record */
    uint64_t kind;
    uint64_t inode;
    int64_t offset;    /* of a write; the new size of a truncation; the number of a flush or of a grave */
    int64_t length;    /* of a write */
    int64_t file_size; /* before a write or truncation */
    uint32_t path_size, other_size;
    uint64_t before_size; /* bytes that are overwritten or cut off */
};

static char folder[PATH_MAX], grave[PATH_MAX];
static size_t folder_size;
static int journal = -1;
static struct control *control;
static int64_t number;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("FAULTY_DISK_FOLDER"), *page = getenv("FAULTY_DISK_CONTROL");
    const char *record = getenv("FAULTY_DISK_JOURNAL"), *graves = getenv("FAULTY_DISK_GRAVE");
    if (!where || !page)
        return;
    int descriptor = syscall(SYS_openat, AT_FDCWD, page, O_RDWR | O_CLOEXEC, 0);
    void *mapped = descriptor < 0 ? MAP_FAILED
                                  : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (mapped == MAP_FAILED || !realpath(where, folder)) {
        fprintf(stderr, "faulty disk: %s and %s cannot be used\n", where, page);
        abort();
    }
    control = mapped;
    syscall(SYS_close, descriptor);
    folder_size = strlen(folder);
    if (record && graves) {
        snprintf(grave, sizeof grave, "%s", graves);
        int opened = syscall(SYS_openat, AT_FDCWD, record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        /* Out of the way of programs that count on low numbers. */
        journal = opened < 0 ? -1 : fcntl(opened, F_DUPFD_CLOEXEC, 200);
        if (journal < 0)
            abort();
        syscall(SYS_close, opened);
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        number = now.tv_sec * 1000000000LL + now.tv_nsec;
    }
    unsetenv("LD_PRELOAD");
    unsetenv("FAULTY_DISK_FOLDER");
    unsetenv("FAULTY_DISK_CONTROL");
    unsetenv("FAULTY_DISK_JOURNAL");
    unsetenv("FAULTY_DISK_GRAVE");
}

/* ---- who the file is. All of these give its path relative to the folder, or NULL where it is none of ours. ---- */

static const char *inside(const char *path) {
    if (strncmp(path, folder, folder_size) != 0 || (path[folder_size] != '/' && path[folder_size] != '\0'))
        return NULL;
    return path[folder_size] ? path + folder_size + 1 : ".";
}

static const char *of_descriptor(int descriptor, char *buffer) {
    if (!control || descriptor < 0 || descriptor == journal)
        return NULL;
    int kept = errno;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, link, buffer, (size_t)PATH_MAX - 1);
    errno = kept;
    if (size <= 0)
        return NULL;
    buffer[size] = '\0';
    return inside(buffer);
}

static const char *of_path(int base, const char *path, char *buffer) {
    if (!control || !path || !*path)
        return NULL;
    int kept = errno;
    char whole[PATH_MAX], parent[PATH_MAX], start[PATH_MAX] = "";
    const char *found = NULL;
    if (*path != '/') {
        char link[64];
        snprintf(link, sizeof link, base == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", base);
        ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, link, start, sizeof start - 1);
        start[size < 0 ? 0 : size] = '\0';
    }
    if ((size_t)snprintf(whole, sizeof whole, "%s%s%s", start, *path == '/' ? "" : "/", path) < sizeof whole) {
        char *name = strrchr(whole, '/');
        while (name > whole && !name[1]) { /* mkdir("a/") */
            *name = '\0';
            name = strrchr(whole, '/');
        }
        *name++ = '\0';
        if (realpath(*whole ? whole : "/", parent) &&
            (size_t)snprintf(buffer, PATH_MAX, "%s/%s", parent, name) < PATH_MAX)
            found = inside(buffer);
    }
    errno = kept;
    return found;
}

/* ---- errors ---- */

static int meant(const char *path) {
    const char *only = control->only;
    if (!*only)
        return 1;
    char pattern[sizeof control->only];
    while (*only) {
        size_t size = strcspn(only, "\n");
        memcpy(pattern, only, size);
        pattern[size] = '\0';
        if (fnmatch(pattern, path, 0) == 0)
            return 1;
        only += size + (only[size] == '\n');
    }
    return 0;
}

/* Whether the call fails now; errno is then set. */
static int refuse(const char *path, uint32_t classes) {
    if (!path || !(__atomic_load_n(&control->classes, __ATOMIC_ACQUIRE) & classes) || !meant(path))
        return 0;
    int64_t times = __atomic_load_n(&control->times, __ATOMIC_ACQUIRE);
    if (times == 0 || (times > 0 && __atomic_fetch_sub(&control->times, 1, __ATOMIC_ACQ_REL) <= 0))
        return 0;
    __atomic_fetch_add(&control->refused, 1, __ATOMIC_ACQ_REL);
    errno = control->error;
    return 1;
}

/* How many of the bytes may be written; -1 and errno where it is none. */
static ssize_t admit(const char *path, int64_t offset, size_t size, int64_t file_size) {
    uint32_t classes = __atomic_load_n(&control->classes, __ATOMIC_ACQUIRE);
    if (!size || !(classes & (WRITE | GROW)) || !meant(path) || !control->times)
        return size;
    int64_t harmless = 0; /* a full disk still has the blocks that it has */
    if (!(classes & WRITE) && offset < file_size)
        harmless = file_size - offset < (int64_t)size ? file_size - offset : (int64_t)size;
    int64_t charged = size - harmless, left = __atomic_fetch_sub(&control->bytes, charged, __ATOMIC_ACQ_REL);
    if (left >= charged)
        return size;
    __atomic_store_n(&control->bytes, 0, __ATOMIC_RELEASE);
    if (harmless + (left > 0 ? left : 0) > 0)
        return harmless + (left > 0 ? left : 0);
    return refuse(path, WRITE | GROW) ? -1 : (ssize_t)size;
}

/* ---- the journal ---- */

static void put(char kind, const char *path, const char *other, uint64_t inode, int64_t offset, int64_t length,
                int64_t file_size, const void *before, size_t before_size) {
    if (journal < 0 || !path)
        return;
    int kept = errno;
    struct head head = {0, kind, inode, offset, length, file_size, strlen(path), other ? strlen(other) : 0, before_size};
    head.size = sizeof head + head.path_size + head.other_size + before_size;
    struct iovec parts[] = {{&head, sizeof head},
                            {(void *)path, head.path_size},
                            {(void *)other, head.other_size},
                            {(void *)before, before_size}};
    if (syscall(SYS_writev, journal, parts, 4) != (ssize_t)head.size) {
        fprintf(stderr, "faulty disk: the journal cannot be written\n");
        abort();
    }
    errno = kept;
}

/* The file is about to lose what it has from here on, for so many bytes. Its own descriptor may not be readable. */
static void put_change(char kind, const char *path, int descriptor, int64_t offset, int64_t length) {
    struct stat status;
    if (journal < 0 || !path || fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode))
        return;
    int kept = errno;
    int64_t end = kind == 'T' ? status.st_size : offset + length;
    int64_t size = (end < status.st_size ? end : status.st_size) - offset;
    char *before = size > 0 ? malloc(size) : NULL, link[64];
    if (size > 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        int reading = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
        size = syscall(SYS_pread64, reading, before, (size_t)size, offset);
        syscall(SYS_close, reading);
    }
    put(kind, path, NULL, status.st_ino, offset, length, status.st_size, before, size > 0 ? size : 0);
    free(before);
    errno = kept;
}

static uint64_t inode_of(int base, const char *path) {
    struct stat status;
    int kept = errno;
    uint64_t inode = fstatat(base, path, &status, AT_SYMLINK_NOFOLLOW) == 0 ? status.st_ino : 0;
    errno = kept;
    return inode;
}

/* Keep a file that is about to lose a name; 0 where it need not or cannot be. */
static int64_t bury(int base, const char *path, const char *found) {
    if (journal < 0 || !found)
        return 0;
    int kept = errno;
    char name[PATH_MAX + 32];
    int64_t mine = __atomic_add_fetch(&number, 1, __ATOMIC_ACQ_REL);
    snprintf(name, sizeof name, "%s/%lld", grave, (long long)mine);
    if (syscall(SYS_linkat, base, path, AT_FDCWD, name, 0) != 0)
        mine = 0;
    errno = kept;
    return mine;
}

/* ---- opening ---- */

static int do_open(int base, const char *path, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC));
    const char *found = writes && !(flags & O_DIRECTORY) ? of_path(base, path, buffer) : NULL;
    if (!found)
        return syscall(SYS_openat, base, path, flags, mode);
    int missing = !inode_of(base, path);
    if (refuse(found, OPEN | (missing && (flags & O_CREAT) ? CREATE : 0) | (flags & O_TRUNC ? TRUNCATE : 0)))
        return -1;
    pthread_mutex_lock(&lock);
    if (flags & O_TRUNC && !missing) {
        int old = syscall(SYS_openat, base, path, O_RDONLY | O_CLOEXEC, 0);
        put_change('T', found, old, 0, 0);
        syscall(SYS_close, old);
    }
    int descriptor = syscall(SYS_openat, base, path, flags, mode);
    if (descriptor >= 0 && missing)
        put('C', found, NULL, inode_of(base, path), 0, 0, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return descriptor;
}

#define MODE_ARGUMENT                                                                                                  \
    mode_t mode = 0;                                                                                                   \
    if (flags & (O_CREAT | __O_TMPFILE)) {                                                                             \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode = va_arg(more, mode_t);                                                                                   \
        va_end(more);                                                                                                  \
    }

int open(const char *path, int flags, ...) { MODE_ARGUMENT return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_ARGUMENT return do_open(AT_FDCWD, path, flags, mode); }
int openat(int base, const char *path, int flags, ...) { MODE_ARGUMENT return do_open(base, path, flags, mode); }
int openat64(int base, const char *path, int flags, ...) { MODE_ARGUMENT return do_open(base, path, flags, mode); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }

/* ---- reading ---- */

#define READING(call)                                                                                                  \
    char buffer[PATH_MAX];                                                                                             \
    if (control && control->classes & READ && refuse(of_descriptor(descriptor, buffer), READ))                         \
        return -1;                                                                                                     \
    return call;

ssize_t read(int descriptor, void *data, size_t size) { READING(syscall(SYS_read, descriptor, data, size)) }
ssize_t readv(int descriptor, const struct iovec *parts, int count) {
    READING(syscall(SYS_readv, descriptor, parts, count))
}
ssize_t pread(int descriptor, void *data, size_t size, off_t offset) {
    READING(syscall(SYS_pread64, descriptor, data, size, offset))
}
ssize_t pread64(int descriptor, void *data, size_t size, off64_t offset) {
    READING(syscall(SYS_pread64, descriptor, data, size, offset))
}
ssize_t preadv64v2(int descriptor, const struct iovec *parts, int count, off64_t offset, int flags) {
    READING(syscall(SYS_preadv2, descriptor, parts, count, offset, 0L, flags))
}

/* ---- writing. The offset is -1 for the descriptor's own position; the kernel's answer is the call's. ---- */

static ssize_t do_write(int descriptor, const struct iovec *parts, int count, int64_t offset, int flags) {
    char buffer[PATH_MAX];
    struct stat status;
    const char *path = of_descriptor(descriptor, buffer);
    struct iovec part;
    if (path && fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode)) {
        size_t size = 0;
        for (int index = 0; index < count; index++)
            size += parts[index].iov_len;
        pthread_mutex_lock(&lock);
        int64_t at = offset;
        if (fcntl(descriptor, F_GETFL) & O_APPEND)
            at = status.st_size;
        else if (at < 0)
            at = lseek(descriptor, 0, SEEK_CUR);
        ssize_t admitted = admit(path, at, size, status.st_size);
        ssize_t written = -1;
        if (admitted >= 0) {
            if (admitted < (ssize_t)size) { /* a short write is a prefix; a prefix of the first part is one */
                part = parts[0];
                part.iov_len = part.iov_len < (size_t)admitted ? part.iov_len : (size_t)admitted;
                parts = &part, count = 1, size = part.iov_len;
            }
            put_change('W', path, descriptor, at, size);
            written = offset < 0 ? syscall(SYS_writev, descriptor, parts, count)
                                 : syscall(SYS_pwritev2, descriptor, parts, count, offset, 0L, flags);
        }
        int kept = errno;
        pthread_mutex_unlock(&lock);
        errno = kept;
        return written;
    }
    if (offset < 0)
        return count == 1 ? syscall(SYS_write, descriptor, parts[0].iov_base, parts[0].iov_len)
                          : syscall(SYS_writev, descriptor, parts, count);
    return syscall(SYS_pwritev2, descriptor, parts, count, offset, 0L, flags);
}

ssize_t write(int descriptor, const void *data, size_t size) {
    struct iovec part = {(void *)data, size};
    return do_write(descriptor, &part, 1, -1, 0);
}
ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    return do_write(descriptor, parts, count, -1, 0);
}
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    struct iovec part = {(void *)data, size};
    return do_write(descriptor, &part, 1, offset, 0);
}
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    return pwrite(descriptor, data, size, offset);
}
ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset) {
    return do_write(descriptor, parts, count, offset, 0);
}
ssize_t pwritev64v2(int descriptor, const struct iovec *parts, int count, off64_t offset, int flags) {
    return do_write(descriptor, parts, count, offset, flags);
}

/* Copies inside the kernel become writes like any other: a short one is allowed. */
static ssize_t copy(int out, int64_t *to, int in, int64_t *from, size_t size) {
    char block[65536];
    struct iovec part = {block, size < sizeof block ? size : sizeof block};
    ssize_t got = from ? syscall(SYS_pread64, in, block, part.iov_len, *from) : syscall(SYS_read, in, block, part.iov_len);
    if (got <= 0)
        return got;
    part.iov_len = got;
    ssize_t written = do_write(out, &part, 1, to ? *to : -1, 0);
    int64_t taken = written > 0 ? written : 0;
    if (from)
        *from += taken;
    else if (taken < got)
        lseek(in, taken - got, SEEK_CUR);
    if (to)
        *to += taken;
    return written;
}

ssize_t sendfile64(int out, int in, off64_t *from, size_t size) {
    char buffer[PATH_MAX];
    if (of_descriptor(out, buffer))
        return copy(out, NULL, in, from, size);
    return syscall(SYS_sendfile, out, in, from, size);
}
ssize_t sendfile(int out, int in, off_t *from, size_t size) { return sendfile64(out, in, from, size); }
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    char buffer[PATH_MAX];
    if (of_descriptor(out, buffer))
        return copy(out, to, in, from, size);
    return syscall(SYS_copy_file_range, in, from, out, to, size, flags);
}

/* ---- sizes ---- */

static int resize(int descriptor, int64_t size) {
    char buffer[PATH_MAX];
    const char *path = of_descriptor(descriptor, buffer);
    if (refuse(path, TRUNCATE))
        return -1;
    pthread_mutex_lock(&lock);
    put_change('T', path, descriptor, size, 0);
    int result = syscall(SYS_ftruncate, descriptor, size);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int descriptor, off_t size) { return resize(descriptor, size); }
int ftruncate64(int descriptor, off64_t size) { return resize(descriptor, size); }
int truncate64(const char *path, off64_t size) {
    int descriptor = open(path, O_WRONLY | O_CLOEXEC);
    if (descriptor < 0)
        return -1;
    int result = resize(descriptor, size);
    int kept = errno;
    close(descriptor);
    errno = kept;
    return result;
}
int truncate(const char *path, off_t size) { return truncate64(path, size); }

int fallocate64(int descriptor, int mode, off64_t offset, off64_t size) {
    char buffer[PATH_MAX];
    const char *path = of_descriptor(descriptor, buffer);
    if (refuse(path, WRITE | GROW))
        return -1;
    put_change('W', path, descriptor, offset, size);
    return syscall(SYS_fallocate, descriptor, mode, offset, size);
}
int fallocate(int descriptor, int mode, off_t offset, off_t size) { return fallocate64(descriptor, mode, offset, size); }
int posix_fallocate64(int descriptor, off64_t offset, off64_t size) {
    int kept = errno;
    int error = fallocate64(descriptor, 0, offset, size) == 0 ? 0 : errno;
    errno = kept;
    return error;
}
int posix_fallocate(int descriptor, off_t offset, off_t size) { return posix_fallocate64(descriptor, offset, size); }

/* ---- flushing ---- */

static int flush(int descriptor, long call) {
    char buffer[PATH_MAX];
    struct stat status;
    const char *path = of_descriptor(descriptor, buffer);
    if (!path || fstat(descriptor, &status) != 0)
        return syscall(call, descriptor);
    int64_t mine = __atomic_add_fetch(&number, 1, __ATOMIC_ACQ_REL);
    put('B', path, NULL, status.st_ino, mine, 0, 0, NULL, 0);
    if (refuse(path, SYNC))
        return -1;
    int result = syscall(call, descriptor);
    if (result == 0)
        put('E', path, NULL, status.st_ino, mine, 0, 0, NULL, 0);
    return result;
}

int fsync(int descriptor) { return flush(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return flush(descriptor, SYS_fdatasync); }

/* ---- names ---- */

int mkdirat(int base, const char *path, mode_t mode) {
    char buffer[PATH_MAX];
    const char *found = of_path(base, path, buffer);
    if (found && !inode_of(base, path) && refuse(found, CREATE))
        return -1;
    int result = syscall(SYS_mkdirat, base, path, mode);
    if (result == 0 && found)
        put('M', found, NULL, inode_of(base, path), 0, 0, 0, NULL, 0);
    return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int renameat2(int from_base, const char *from, int to_base, const char *to, unsigned flags) {
    char from_buffer[PATH_MAX], to_buffer[PATH_MAX];
    const char *source = of_path(from_base, from, from_buffer), *target = of_path(to_base, to, to_buffer);
    if (refuse(source, REMOVE) || (target && refuse(target, REMOVE)))
        return -1;
    int64_t mine = target && inode_of(to_base, to) ? bury(to_base, to, target) : 0;
    int result = syscall(SYS_renameat2, from_base, from, to_base, to, flags);
    if (result == 0 && source && target)
        put('R', source, target, inode_of(to_base, to), mine, 0, 0, NULL, 0);
    return result;
}
int renameat(int from_base, const char *from, int to_base, const char *to) {
    return renameat2(from_base, from, to_base, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int base, const char *path, int flags) {
    char buffer[PATH_MAX];
    const char *found = of_path(base, path, buffer);
    if (!found)
        return syscall(SYS_unlinkat, base, path, flags);
    uint64_t inode = inode_of(base, path);
    if (inode && refuse(found, REMOVE))
        return -1;
    int64_t mine = inode && !(flags & AT_REMOVEDIR) ? bury(base, path, found) : 0;
    int result = syscall(SYS_unlinkat, base, path, flags);
    if (result == 0)
        put(flags & AT_REMOVEDIR ? 'D' : 'U', found, NULL, inode, mine, 0, 0, NULL, 0);
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    struct stat status;
    int is_folder = lstat(path, &status) == 0 && S_ISDIR(status.st_mode);
    return unlinkat(AT_FDCWD, path, is_folder ? AT_REMOVEDIR : 0);
}

int linkat(int from_base, const char *from, int to_base, const char *to, int flags) {
    char buffer[PATH_MAX];
    const char *found = of_path(to_base, to, buffer);
    if (refuse(found, CREATE))
        return -1;
    int result = syscall(SYS_linkat, from_base, from, to_base, to, flags);
    if (result == 0 && found)
        put('C', found, NULL, inode_of(to_base, to), 0, 0, 0, NULL, 0);
    return result;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int symlinkat(const char *target, int base, const char *path) {
    char buffer[PATH_MAX];
    if (refuse(of_path(base, path, buffer), CREATE))
        return -1;
    return syscall(SYS_symlinkat, target, base, path);
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

/* ---- attributes ---- */

int fchmod(int descriptor, mode_t mode) {
    char buffer[PATH_MAX];
    return refuse(of_descriptor(descriptor, buffer), ATTRIBUTE) ? -1 : (int)syscall(SYS_fchmod, descriptor, mode);
}
int chmod(const char *path, mode_t mode) {
    char buffer[PATH_MAX];
    if (refuse(of_path(AT_FDCWD, path, buffer), ATTRIBUTE))
        return -1;
    return syscall(SYS_fchmodat, AT_FDCWD, path, mode);
}
int utimensat(int base, const char *path, const struct timespec times[2], int flags) {
    char buffer[PATH_MAX];
    if (refuse(of_path(base, path, buffer), ATTRIBUTE))
        return -1;
    return syscall(SYS_utimensat, base, path, times, flags);
}
int futimens(int descriptor, const struct timespec times[2]) {
    char buffer[PATH_MAX];
    if (refuse(of_descriptor(descriptor, buffer), ATTRIBUTE))
        return -1;
    return syscall(SYS_utimensat, descriptor, NULL, times, 0);
}
