/* Stands between SQLite and the disk: the n-th call on a database file fails, tears or ends the process. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define MOST 4096
/* What happens: an errno, or one of these. */
#define DIE 0
#define TEAR -1

static unsigned char ours[MOST];
static char wanted[16];
static volatile int armed, number, seen, failure, lasting;

void inject_arm(int nth, const char *call, int error, int lasts) {
    strncpy(wanted, call, sizeof wanted - 1);
    number = nth;
    failure = error;
    lasting = lasts;
    seen = 0;
    armed = 1;
}

int inject_disarm(void) {
    armed = 0;
    return seen;
}

/* 1 if this call is the one, or one behind it where the fault lasts. */
static int is_due(int fd, const char *call) {
    if (!armed || fd < 0 || fd >= MOST || !ours[fd]) return 0;
    if (strcmp(wanted, "any") != 0 && strcmp(wanted, call) != 0) return 0;
    int now = __sync_add_and_fetch(&seen, 1);
    if (number == 0 || now < number || (now > number && !lasting)) return 0;
    if (failure == DIE) pthread_kill(pthread_self(), SIGKILL);
    errno = failure;
    return 1;
}

static void opened(int fd, const char *path) {
    if (fd >= 0 && fd < MOST) ours[fd] = path != NULL && strstr(path, "app.db") != NULL && strstr(path, "-shm") == NULL;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (real == NULL) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, #name, const char *, int, ...); \
        va_list more; \
        va_start(more, flags); \
        int mode = va_arg(more, int); \
        va_end(more); \
        int fd = real(path, flags, mode); \
        opened(fd, path); \
        return fd; \
    }
OPEN(open)
OPEN(open64)

#define PWRITE(name) \
    ssize_t name(int fd, const void *from, size_t size, off64_t at) { \
        REAL(ssize_t, #name, int, const void *, size_t, off64_t); \
        if (armed && failure == TEAR && fd >= 0 && fd < MOST && ours[fd]) { \
            if (__sync_add_and_fetch(&seen, 1) == number) { \
                real(fd, from, size / 2, at); \
                pthread_kill(pthread_self(), SIGKILL); \
            } \
            return real(fd, from, size, at); \
        } \
        if (is_due(fd, "write")) return -1; \
        return real(fd, from, size, at); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define SYNC(name) \
    int name(int fd) { \
        REAL(int, #name, int); \
        if (is_due(fd, "sync")) return -1; \
        return real(fd); \
    }
SYNC(fsync)
SYNC(fdatasync)

#define TRUNCATE(name) \
    int name(int fd, off64_t size) { \
        REAL(int, #name, int, off64_t); \
        if (is_due(fd, "truncate")) return -1; \
        return real(fd, size); \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)
