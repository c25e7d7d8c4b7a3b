/* A machine without time of its own, and with a count of what is taken from it; see world.h. */
#include "world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "memory/fault.h"
#include "memory/memory.h"

#define START_NS        UINT64_C(1000000000000)
#define MAX_DESCRIPTORS 96
#define MAX_TIMERS      1024 /* descriptor numbers below this may be timers */
#define MAX_OPEN        512  /* descriptor numbers looked at */
#define PAGE            4096u
#define TIMEOUT_NS      UINT64_C(5000000000)
#define MAX_MAPS        24u

struct ob_dev;

/* What the linker redirects here, and where it went before. */
int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __real_timerfd_create(int clock, int flags);
int __wrap_timerfd_create(int clock, int flags);
int __real_timerfd_settime(int fd, int flags, const struct itimerspec *set, struct itimerspec *old);
int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *set, struct itimerspec *old);
int __real_epoll_wait(int fd, struct epoll_event *events, int max, int timeout);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int max, int timeout);
ssize_t __real_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *msg, int flags);
int __real_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask);
int __wrap_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask);
void *__real_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t len);
int __wrap_munmap(void *at, size_t len);
int __real_ob_memory_new(struct ob_memory **memory, unsigned max_maps);
int __wrap_ob_memory_new(struct ob_memory **memory, unsigned max_maps);
void __wrap_ob_log(const struct ob_dev *dev, const char *format, ...) __attribute__((format(printf, 2, 3)));

bool (*world_idle)(void);

static uint64_t now_ns = START_NS;
static uint64_t deadline[MAX_TIMERS]; /* by descriptor; 0: not armed, or fired */
static size_t mapped;                 /* bytes */
static size_t mapped_before;
static unsigned open_before; /* descriptors */
static int fds[MAX_DESCRIPTORS], files[MAX_DESCRIPTORS], events[MAX_DESCRIPTORS];
static unsigned n_fds, n_files, n_events;

_Noreturn void broken(const char *promise, const char *file, int line)
{
    fprintf(stderr, "%s:%d: broken: %s\n", file, line, promise);
    abort();
}

/* --- Time -------------------------------------------------------------------------------------------------------- */

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    if (clock != CLOCK_MONOTONIC)
        return __real_clock_gettime(clock, now);
    *now = (struct timespec){ .tv_sec = (time_t)(now_ns / 1000000000u), .tv_nsec = (long)(now_ns % 1000000000u) };
    return 0;
}

int __wrap_timerfd_create(int clock, int flags)
{
    int fd = __real_timerfd_create(clock, flags);

    promise(fd < MAX_TIMERS);
    if (fd >= 0)
        deadline[fd] = 0;
    return fd;
}

/* The kernel's timer is one that fires at once or never. */
static int set_timer(int fd, bool fire)
{
    struct itimerspec at = { .it_value.tv_nsec = fire };

    return __real_timerfd_settime(fd, TFD_TIMER_ABSTIME, &at, NULL);
}

int __wrap_timerfd_settime(int fd, int flags, const struct itimerspec *set, struct itimerspec *old)
{
    uint64_t at = (uint64_t)set->it_value.tv_sec * 1000000000u + (uint64_t)set->it_value.tv_nsec;

    promise(fd >= 0 && fd < MAX_TIMERS && !old && !set->it_interval.tv_sec && !set->it_interval.tv_nsec);
    if (set->it_value.tv_sec < 0 || set->it_value.tv_nsec < 0 || set->it_value.tv_nsec >= 1000000000) {
        errno = EINVAL;
        return -1;
    }
    if (at > 0 && !(flags & TFD_TIMER_ABSTIME))
        at += now_ns;
    deadline[fd] = at > now_ns ? at : 0;
    return set_timer(fd, at > 0 && at <= now_ns);
}

void world_advance(uint64_t ns)
{
    now_ns += ns;
    for (int fd = 0; fd < MAX_TIMERS; fd++) {
        if (deadline[fd] == 0 || deadline[fd] > now_ns)
            continue;
        deadline[fd] = 0;
        (void)set_timer(fd, true); /* one that was closed meanwhile is no timer */
    }
}

int __wrap_epoll_wait(int fd, struct epoll_event *found, int max, int timeout)
{
    int n = __real_epoll_wait(fd, found, max, 0);

    while (n == 0 && timeout != 0 && world_idle && world_idle())
        n = __real_epoll_wait(fd, found, max, 0);
    if (n == 0 && timeout > 0) {
        world_advance((uint64_t)timeout * 1000000u);
        n = __real_epoll_wait(fd, found, max, 0);
    }
    return n;
}

/* A socket that waits has a time-out, which is over when nothing more will come. */
ssize_t __wrap_recvmsg(int fd, struct msghdr *msg, int flags)
{
    ssize_t n = __real_recvmsg(fd, msg, flags | MSG_DONTWAIT);

    if (flags & MSG_DONTWAIT)
        return n;
    while (n < 0 && errno == EAGAIN && world_idle && world_idle())
        n = __real_recvmsg(fd, msg, flags | MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        world_advance(TIMEOUT_NS);
    return n;
}

int __wrap_ppoll(struct pollfd *polled, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    static const struct timespec at_once = { 0 };
    int n = __real_ppoll(polled, count, &at_once, mask);
    uint64_t ns = timeout ? (uint64_t)timeout->tv_sec * 1000000000u + (uint64_t)timeout->tv_nsec : TIMEOUT_NS;

    while (n == 0 && ns > 0 && world_idle && world_idle())
        n = __real_ppoll(polled, count, &at_once, mask);
    if (n == 0)
        world_advance(ns);
    return n;
}

/* --- Counting ---------------------------------------------------------------------------------------------------- */

static size_t whole_pages(size_t len)
{
    return (len + PAGE - 1) / PAGE * PAGE;
}

void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
    void *p = __real_mmap64(at, len, prot, flags, fd, offset);

    if (p != MAP_FAILED && !(flags & MAP_FIXED)) /* which replaces what is counted already */
        mapped += whole_pages(len);
    return p;
}

int __wrap_munmap(void *at, size_t len)
{
    int result = __real_munmap(at, len);

    if (result == 0)
        mapped -= whole_pages(len);
    return result;
}

/* So few that an input reaches the end of them; and the table for 65535 would be most of a run's time. */
int __wrap_ob_memory_new(struct ob_memory **memory, unsigned max_maps)
{
    return __real_ob_memory_new(memory, max_maps < MAX_MAPS ? max_maps : MAX_MAPS);
}

/* Lines of the log are written and checked like all others, to nobody. */
void __wrap_ob_log(const struct ob_dev *dev, const char *format, ...)
{
    char line[1024];
    va_list args;

    (void)dev;
    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (getenv("FUZZ_LOG"))
        fprintf(stderr, "log: %s\n", line);
}

/* With one system call: a number that is no descriptor is an event of its own. */
static unsigned count_open(void)
{
    struct pollfd polled[MAX_OPEN];
    unsigned n = 0;

    for (int fd = 0; fd < MAX_OPEN; fd++)
        polled[fd] = (struct pollfd){ .fd = fd };
    promise(poll(polled, MAX_OPEN, 0) >= 0);
    for (int fd = 0; fd < MAX_OPEN; fd++)
        n += !(polled[fd].revents & POLLNVAL);
    return n;
}

static void list_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");

    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char target[256];
        ssize_t n = readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);
        if (n > 0)
            fprintf(stderr, "descriptor %s: %.*s\n", entry->d_name, (int)n, target);
    }
    if (folder)
        closedir(folder);
}

void world_begin(void)
{
    static bool guarded;

    /* Not before the first run: it has to lie on top of the fuzzer's own handler. */
    if (!guarded)
        promise(ob_fault_install() == 0);
    guarded = true;
    now_ns = START_NS;
    memset(deadline, 0, sizeof(deadline));
    n_fds = n_files = n_events = 0;
    open_before = count_open();
    mapped_before = mapped;
}

void world_end(void)
{
    while (n_fds > 0)
        close(fds[--n_fds]);
    unsigned open_now = count_open();
    if (open_now != open_before)
        list_descriptors();
    promise(open_now == open_before);
    promise(mapped == mapped_before);
}

/* --- Descriptors ------------------------------------------------------------------------------------------------- */

static int keep(int fd)
{
    promise(fd >= 0);
    fds[n_fds++] = fd;
    return fd;
}

static int new_file(uint64_t size, unsigned flags)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC | flags);

    promise(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    return keep(fd);
}

int world_new_file(unsigned pages)
{
    if (n_fds + 2 > MAX_DESCRIPTORS)
        return -1;
    return files[n_files++] = new_file((uint64_t)pages * PAGE, 0);
}

int world_new_event(void)
{
    if (n_fds + 2 > MAX_DESCRIPTORS)
        return -1;
    return events[n_events++] = keep(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
}

/* An eventfd whose next write would block, or fail. */
static int full_event(bool blocking)
{
    int fd = keep(eventfd(0, EFD_CLOEXEC | (blocking ? 0 : EFD_NONBLOCK)));

    promise(eventfd_write(fd, UINT64_MAX - 1) == 0);
    return fd;
}

static int pair(bool sockets, unsigned which)
{
    int both[2];

    promise((sockets ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) : pipe2(both, O_CLOEXEC)) == 0);
    (void)keep(both[!which]);
    return keep(both[which]);
}

int world_descriptor(struct input *in)
{
    unsigned kind = take8(in);

    if (n_fds + 2 > MAX_DESCRIPTORS)
        return -1;
    switch (kind % 16) {
    case 0:
    case 1:
    case 2:
        return world_new_event();
    case 3:
        return world_new_file(1 + kind / 16);
    case 4:
        return world_new_file(16);
    case 5: /* not whole pages */
        return files[n_files++] = new_file(take_number(in, 2) % (64 * PAGE), 0);
    case 6: {
        int fd = new_file(16 * PAGE, MFD_ALLOW_SEALING);
        promise(fcntl(fd, F_ADD_SEALS, kind & 16 ? F_SEAL_WRITE : F_SEAL_SHRINK | F_SEAL_GROW) == 0);
        return fd;
    }
    case 7: {
        char path[32];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", new_file(16 * PAGE, 0));
        return keep(open(path, (kind & 16 ? O_PATH : O_RDONLY) | O_CLOEXEC));
    }
    case 8:
        return full_event(kind & 16);
    case 9:
        return keep(eventfd(1, EFD_CLOEXEC)); /* one that may block */
    case 10:
        return pair(false, kind >> 4 & 1);
    case 11:
        return pair(true, kind >> 4 & 1);
    case 12:
        return keep(open("/dev/null", O_RDWR | O_CLOEXEC));
    case 13:
        return keep(epoll_create1(EPOLL_CLOEXEC));
    case 14:
        return keep(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    default:
        return n_fds > 0 ? fds[kind / 16 % n_fds] : keep(open("/dev/zero", O_RDWR | O_CLOEXEC));
    }
}

int world_file(unsigned number)
{
    return n_files ? files[number % n_files] : -1;
}

int world_event(unsigned number)
{
    return n_events ? events[number % n_events] : -1;
}
