/* A disk that fails on demand and remembers what was flushed: loaded before libc with LD_PRELOAD.

It stands between one process and the files below one folder, and knows two arts:

1. Errors. A control page, shared with the test by mmap, says which classes of calls fail, with what error, for
   which files, after how many bytes and how often. It is looked at in every call, so that a disk can fill up and
   get well again while the process runs.
2. A journal. What changes a file is written down before it is done, with the bytes that it overwrites; what
   changes a folder right after; a flush at its begin and, with how it ended, at its end. So the test knows of
   every byte whether it was on the disk when the process died, and can undo what was not. A file that loses its
   last name gets one in a grave folder first. A record is one write(2) in append mode: SIGKILL leaves whole ones.

Calls go to the kernel by number: nothing here depends on who else stands before libc. Who the file is, the kernel
says (/proc/self/fd): descriptors are not tracked, so a renamed or inherited one cannot be mistaken. What is mapped
into memory is not seen; SQLite maps only its -shm, which no power cut leaves behind.

The environment is cleaned before main runs: programs that the process starts are not touched. */

#include "faulty_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

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
struct control *control;
static int64_t number;
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

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

/* ---- who the file is ---- */

static const char *inside(const char *path) {
    if (strncmp(path, folder, folder_size) != 0 || (path[folder_size] != '/' && path[folder_size] != '\0'))
        return NULL;
    return path[folder_size] ? path + folder_size + 1 : ".";
}

const char *of_descriptor(int descriptor, char *buffer) {
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

const char *of_path(int base, const char *path, char *buffer) {
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

int refuse(const char *path, uint32_t classes) {
    if (!path || !(__atomic_load_n(&control->classes, __ATOMIC_ACQUIRE) & classes) || !meant(path))
        return 0;
    int64_t times = __atomic_load_n(&control->times, __ATOMIC_ACQUIRE);
    if (times == 0 || (times > 0 && __atomic_fetch_sub(&control->times, 1, __ATOMIC_ACQ_REL) <= 0))
        return 0;
    __atomic_fetch_add(&control->refused, 1, __ATOMIC_ACQ_REL);
    errno = control->error;
    return 1;
}

ssize_t admit(const char *path, int64_t offset, size_t size, int64_t file_size) {
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

static void record(char kind, const char *path, const char *other, uint64_t inode, int64_t offset, int64_t length,
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

void put(char kind, const char *path, const char *other, uint64_t inode, int64_t offset) {
    record(kind, path, other, inode, offset, 0, 0, NULL, 0);
}

int64_t next_number(void) { return __atomic_add_fetch(&number, 1, __ATOMIC_ACQ_REL); }

void put_change(char kind, const char *path, int descriptor, int64_t offset, int64_t length) {
    struct stat status;
    if (journal < 0 || !path || fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode))
        return;
    int kept = errno;
    int64_t end = kind == 'T' ? status.st_size : offset + length;
    int64_t size = (end < status.st_size ? end : status.st_size) - offset;
    char *before = size > 0 ? malloc(size) : NULL, link[64];
    if (size > 0) {
        /* Its own descriptor may not be readable. */
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        int reading = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
        size = syscall(SYS_pread64, reading, before, (size_t)size, offset);
        syscall(SYS_close, reading);
    }
    record(kind, path, NULL, status.st_ino, offset, length, status.st_size, before, size > 0 ? size : 0);
    free(before);
    errno = kept;
}

uint64_t inode_of(int base, const char *path) {
    struct stat status;
    int kept = errno;
    uint64_t inode = fstatat(base, path, &status, AT_SYMLINK_NOFOLLOW) == 0 ? status.st_ino : 0;
    errno = kept;
    return inode;
}

int64_t bury(int base, const char *path, const char *found) {
    if (journal < 0 || !found)
        return 0;
    int kept = errno;
    char name[PATH_MAX + 32];
    int64_t mine = next_number();
    snprintf(name, sizeof name, "%s/%lld", grave, (long long)mine);
    if (syscall(SYS_linkat, base, path, AT_FDCWD, name, 0) != 0)
        mine = 0;
    errno = kept;
    return mine;
}
