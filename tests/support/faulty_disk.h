/* What the two files of the faulty disk share. The theory is in faulty_disk.c. */

#define _GNU_SOURCE
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/types.h>

#pragma GCC visibility push(hidden)

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

extern struct control *control;
extern pthread_mutex_t lock; /* held while a file is changed and the journal told, so that both have one order */

/* Who the file is: its path relative to the folder, in the buffer of PATH_MAX bytes; NULL where it is none of ours. */
const char *of_descriptor(int descriptor, char *buffer);
const char *of_path(int base, const char *path, char *buffer);
uint64_t inode_of(int base, const char *path);

/* Whether the call fails now; errno is then set. */
int refuse(const char *path, uint32_t classes);
/* How many of the bytes may be written; -1 and errno where it is none. */
ssize_t admit(const char *path, int64_t offset, size_t size, int64_t file_size);

int64_t next_number(void);
/* Write down what was done, or is about to be. */
void put(char kind, const char *path, const char *other, uint64_t inode, int64_t offset);
/* The file is about to lose what it has from here on, for so many bytes, or to its end if it is cut off. */
void put_change(char kind, const char *path, int descriptor, int64_t offset, int64_t length);
/* Keep a file that is about to lose a name, and give its number; 0 where it need not or cannot be. */
int64_t bury(int base, const char *path, const char *found);

#pragma GCC visibility pop
