/* The calls of libc that the faulty disk stands before; see faulty_disk.c.

Each has the errors and the answers of the call that it replaces, and goes to the kernel by number. */

#include "faulty_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

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
        put('C', found, NULL, inode_of(base, path), 0);
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
    int64_t mine = next_number();
    put('B', path, NULL, status.st_ino, mine);
    int result = refuse(path, SYNC) ? -1 : (int)syscall(call, descriptor);
    put(result == 0 ? 'E' : 'F', path, NULL, status.st_ino, mine);
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
        put('M', found, NULL, inode_of(base, path), 0);
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
        put('R', source, target, inode_of(to_base, to), mine);
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
        put(flags & AT_REMOVEDIR ? 'D' : 'U', found, NULL, inode, mine);
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
        put('C', found, NULL, inode_of(to_base, to), 0);
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
