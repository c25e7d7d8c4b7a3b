/* Files that are cut short under us, and SIGBUS that is none of our business. What may kill the process, or changes its
 * handlers, happens in a child. */
#include "memory/fault.h"
#include "memory/memory.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE  UINT64_C(4096)
#define RW    (PROT_READ | PROT_WRITE)
#define PAGES 64u

static int make_file(void)
{
    int fd = memfd_create("fault", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)(PAGES * PAGE)), 0);
    for (uint32_t i = 0; i < PAGES; i++) {
        uint32_t number = i + 1;

        assert_int_equal(pwrite(fd, &number, sizeof(number), (off_t)(i * PAGE)), sizeof(number));
    }
    return fd;
}

static volatile uint32_t *page_at(struct ob_memory *memory, uint64_t iova, int prot)
{
    struct iovec iov;

    assert_int_equal(ob_memory_translate(memory, iova, PAGE, prot, &iov, 1), 1);
    return iov.iov_base;
}

static void end_session(struct ob_memory *memory, int maps)
{
    struct ob_retired *retired;

    assert_int_equal(ob_memory_unmap_all(memory, &retired), maps);
    assert_true(ob_memory_retired_done(retired));
    ob_memory_retire(retired);
}

static void cut_short(void **state)
{
    int fd = make_file(), other = make_file();
    struct ob_memory *memory;
    struct pollfd pollfd = { .events = POLLIN };
    uint32_t value;

    assert_int_equal(ob_fault_install(), 0);
    assert_int_equal(ob_memory_new(&memory, 16), 0);
    pollfd.fd = ob_epoch_wake_fd(ob_memory_epoch(memory));
    assert_int_equal(ob_memory_map(memory, 0, PAGES * PAGE, RW, dup(fd), 0), 0);
    assert_int_equal(ob_memory_map(memory, PAGES * PAGE, PAGES * PAGE, PROT_READ, dup(fd), 0), 0);
    assert_int_equal(ob_memory_map(memory, 2 * PAGES * PAGE, PAGES * PAGE, RW, dup(other), 0), 0);
    assert_int_equal(*page_at(memory, 50 * PAGE, RW), 51);
    assert_int_equal(ftruncate(fd, 10 * PAGE), 0);
    assert_false(ob_memory_poisoned(memory));
    assert_int_equal(poll(&pollfd, 1, 0), 0);

    assert_int_equal(*page_at(memory, 50 * PAGE, RW), 0);
    assert_true(ob_memory_poisoned(memory));
    assert_int_equal(poll(&pollfd, 1, 0), 1);
    *page_at(memory, 20 * PAGE, RW) = 5; /* before what was replaced, and still past the end of the file */
    assert_int_equal(*page_at(memory, 20 * PAGE, RW), 5);
    assert_int_equal(*page_at(memory, 63 * PAGE, RW), 0);
    assert_int_equal(*page_at(memory, (PAGES + 30) * PAGE, PROT_READ), 0); /* the other mapping of the same file */
    assert_int_equal(*page_at(memory, 9 * PAGE, RW), 10);                  /* what is still there is still shared */
    *page_at(memory, 9 * PAGE, RW) = 99;
    assert_int_equal(pread(fd, &value, sizeof(value), 9 * PAGE), sizeof(value));
    assert_int_equal(value, 99);
    assert_int_equal(*page_at(memory, (2 * PAGES + 50) * PAGE, RW), 51); /* another file */

    /* the session has to end; the next one starts clean, with the same file */
    assert_int_equal(ob_memory_map(memory, 3 * PAGES * PAGE, PAGE, RW, fd, 0), -EIO);
    end_session(memory, 3);
    assert_false(ob_memory_poisoned(memory));
    assert_int_equal(ftruncate(fd, (off_t)(PAGES * PAGE)), 0);
    value = 123;
    assert_int_equal(pwrite(fd, &value, sizeof(value), 50 * PAGE), sizeof(value));
    assert_int_equal(ob_memory_map(memory, 0, PAGES * PAGE, RW, fd, 0), 0);
    assert_int_equal(*page_at(memory, 50 * PAGE, RW), 123);
    assert_false(ob_memory_poisoned(memory));
    ob_memory_free(memory);
    close(other);
    assert_int_equal(ob_fault_remove(), 0);
}

struct toucher {
    pthread_barrier_t *barrier;
    volatile uint32_t *from;
    uint32_t sum;
};

static void *touch(void *arg)
{
    struct toucher *t = arg;

    pthread_barrier_wait(t->barrier);
    for (unsigned i = 0; i < PAGES; i++)
        t->sum += t->from[i * (PAGE / sizeof(*t->from))];
    return NULL;
}

/* Two threads that meet the same fault at once. */
static void two_at_once(void **state)
{
    assert_int_equal(ob_fault_install(), 0);
    for (unsigned round = 0; round < 50; round++) {
        pthread_barrier_t barrier;
        struct toucher toucher[2];
        struct ob_memory *memory;
        pthread_t thread[2];
        int fd = make_file();

        assert_int_equal(pthread_barrier_init(&barrier, NULL, 2), 0);
        assert_int_equal(ob_memory_new(&memory, 1), 0);
        assert_int_equal(ob_memory_map(memory, 0, PAGES * PAGE, RW, dup(fd), 0), 0);
        assert_int_equal(ftruncate(fd, 0), 0);
        for (unsigned i = 0; i < 2; i++) {
            toucher[i] = (struct toucher){ .barrier = &barrier, .from = page_at(memory, 0, RW) };
            assert_int_equal(pthread_create(&thread[i], NULL, touch, &toucher[i]), 0);
        }
        for (unsigned i = 0; i < 2; i++) {
            pthread_join(thread[i], NULL);
            assert_int_equal(toucher[i].sum, 0);
        }
        assert_true(ob_memory_poisoned(memory));
        ob_memory_free(memory);
        pthread_barrier_destroy(&barrier);
        close(fd);
    }
    assert_int_equal(ob_fault_remove(), 0);
}

/* Runs a function in a child; its exit code, or minus the signal that killed it. */
static int in_child(int (*fn)(void))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid)
        _exit(fn());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* A mapping of no ob_memory, with nothing behind it. */
static volatile uint32_t *foreign(void)
{
    int fd = memfd_create("foreign", MFD_CLOEXEC);

    return fd < 0 ? NULL : mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);
}

static sigjmp_buf jump;
static volatile sig_atomic_t signals;

static void count_and_jump(int signal, siginfo_t *info, void *context)
{
    signals++;
    if (info->si_code > 0)
        siglongjmp(jump, 1);
}

static void just_count(int signal)
{
    signals++;
}

static int default_fault(void)
{
    signal(SIGBUS, SIG_DFL);
    if (ob_fault_install())
        return 1;
    return (int)*foreign() + 2;
}

static int default_sent(void)
{
    signal(SIGBUS, SIG_DFL);
    if (ob_fault_install())
        return 1;
    kill(getpid(), SIGBUS);
    return 2;
}

static int ignored_fault(void)
{
    signal(SIGBUS, SIG_IGN);
    if (ob_fault_install())
        return 1;
    return (int)*foreign() + 2;
}

static int ignored_sent(void)
{
    signal(SIGBUS, SIG_IGN);
    if (ob_fault_install())
        return 1;
    raise(SIGBUS);
    return 0;
}

static int handled(void)
{
    struct sigaction action = { .sa_sigaction = count_and_jump, .sa_flags = SA_SIGINFO };

    if (sigaction(SIGBUS, &action, NULL) || ob_fault_install())
        return 1;
    raise(SIGBUS);
    if (signals != 1)
        return 2;
    if (!sigsetjmp(jump, 1))
        return (int)*foreign() + 3;
    return signals == 2 ? 0 : 4;
}

static int handled_plainly(void)
{
    signal(SIGBUS, just_count);
    if (ob_fault_install())
        return 1;
    raise(SIGBUS);
    return signals == 1 ? 0 : 2;
}

static int installed_and_removed(void)
{
    struct sigaction action;

    signal(SIGBUS, just_count);
    if (ob_fault_remove() != -EINVAL || ob_fault_install() || ob_fault_install() || ob_fault_remove())
        return 1;
    if (sigaction(SIGBUS, NULL, &action) || action.sa_handler == just_count)
        return 2; /* one install is left */
    signal(SIGBUS, SIG_IGN);
    if (ob_fault_remove() != -EBUSY)
        return 3; /* somebody else came after us */
    if (sigaction(SIGBUS, &action, NULL) || ob_fault_remove())
        return 4;
    if (sigaction(SIGBUS, NULL, &action) || action.sa_handler != just_count)
        return 5;
    return ob_fault_remove() == -EINVAL ? 0 : 6;
}

/* Without the handler a file cut short is what it always was. */
static int not_installed(void)
{
    struct ob_memory *memory;
    struct iovec iov;
    int fd = memfd_create("plain", MFD_CLOEXEC);

    signal(SIGBUS, SIG_DFL);
    if (fd < 0 || ftruncate(fd, PAGE) || ob_memory_new(&memory, 1) || ob_memory_map(memory, 0, PAGE, RW, dup(fd), 0) ||
        ob_memory_translate(memory, 0, 4, RW, &iov, 1) != 1 || ftruncate(fd, 0))
        return 1;
    return (int)*(volatile uint32_t *)iov.iov_base + 2;
}

static void others(void **state)
{
    assert_int_equal(in_child(default_fault), -SIGBUS);
    assert_int_equal(in_child(default_sent), -SIGBUS);
    assert_int_equal(in_child(ignored_fault), -SIGBUS);
    assert_int_equal(in_child(ignored_sent), 0);
    assert_int_equal(in_child(handled), 0);
    assert_int_equal(in_child(handled_plainly), 0);
    assert_int_equal(in_child(installed_and_removed), 0);
    assert_int_equal(in_child(not_installed), -SIGBUS);
}

/* More mappings than one chunk of the handler's table holds; the last and the first are found. */
static void many_files(void **state)
{
    struct ob_memory *memory;
    int fd[600];

    assert_int_equal(ob_fault_install(), 0);
    assert_int_equal(ob_memory_new(&memory, 600), 0);
    for (unsigned i = 0; i < 600; i++) {
        fd[i] = memfd_create("many", MFD_CLOEXEC);
        assert_true(fd[i] >= 0);
        assert_int_equal(ftruncate(fd[i], PAGE), 0);
        assert_int_equal(ob_memory_map(memory, i * PAGE, PAGE, RW, dup(fd[i]), 0), 0);
        *page_at(memory, i * PAGE, RW) = i;
    }
    for (unsigned i = 0; i < 600; i += 599) {
        assert_int_equal(ftruncate(fd[i], 0), 0);
        assert_int_equal(*page_at(memory, i * PAGE, RW), 0);
    }
    assert_true(ob_memory_poisoned(memory));
    assert_int_equal(*page_at(memory, 300 * PAGE, RW), 300);
    end_session(memory, 600);
    ob_memory_free(memory);
    for (unsigned i = 0; i < 600; i++)
        close(fd[i]);
    assert_int_equal(ob_fault_remove(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_short),
        cmocka_unit_test(two_at_once),
        cmocka_unit_test(others),
        cmocka_unit_test(many_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
