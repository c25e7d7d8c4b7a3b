/* Runs a device in a thread; see device_bench.h. */
#include "device_bench.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/pci_regs.h>

static void stop_ready(struct ob_worker *worker, int fd, uint32_t events, void *ctx)
{
    struct bench *bench = ctx;

    (void)taken(fd);
    bench->stopped = true;
}

static void *run_device(void *arg)
{
    struct bench *bench = arg;

    do
        bench->result = ob_server_run(bench->dev, -1);
    while (bench->result >= 0 && !bench->stopped);
    return NULL;
}

void bench_new(struct bench *bench, const struct ob_device_class *cls, const char *options)
{
    int sockets[2];

    *bench = (struct bench){ .stop = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) };
    assert_return_code(bench->stop, errno);
    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), errno);
    assert_int_equal(ob_dev_new(cls, options, NULL, &bench->dev), 0);
    const struct ob_listen listen = { .fd = sockets[1], .owner = (uid_t)-1, .group = (gid_t)-1 };
    assert_int_equal(ob_dev_listen(bench->dev, &listen), 0);
    assert_int_equal(ob_worker_fd(ob_control(bench->dev), bench->stop, EPOLLIN, stop_ready, bench), 0);
    ob_raw_init(&bench->raw, sockets[0]);
}

void bench_run(struct bench *bench)
{
    assert_int_equal(pthread_create(&bench->thread, NULL, run_device, bench), 0);
    bench->running = true;
}

void bench_start(struct bench *bench, const struct ob_device_class *cls, const char *options)
{
    bench_new(bench, cls, options);
    bench_run(bench);
    assert_int_equal(ob_raw_handshake(&bench->raw), 0);
}

void bench_stop(struct bench *bench)
{
    if (bench->running) {
        assert_int_equal(eventfd_write(bench->stop, 1), 0);
        assert_int_equal(pthread_join(bench->thread, NULL), 0);
    }
    ob_dev_free(bench->dev);
    ob_raw_close(&bench->raw);
    close(bench->stop);
}

uint64_t bench_read(struct bench *bench, uint32_t region, uint64_t off, uint32_t size)
{
    uint64_t value = 0;

    assert_int_equal(ob_raw_read(&bench->raw, region, off, &value, size), 0);
    return value;
}

void bench_write(struct bench *bench, uint32_t region, uint64_t off, uint64_t value, uint32_t size)
{
    assert_int_equal(ob_raw_write(&bench->raw, region, off, &value, size), 0);
}

void bench_bus_master(struct bench *bench, bool on)
{
    bench_write(bench, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, PCI_COMMAND_MEMORY | (on ? PCI_COMMAND_MASTER : 0),
                2);
}

static int captured = -1, standard_error = -1;

void capture_begin(void)
{
    captured = memfd_create("captured", MFD_CLOEXEC);
    standard_error = dup(STDERR_FILENO);
    assert_true(captured >= 0 && standard_error >= 0);
    assert_int_equal(dup2(captured, STDERR_FILENO), STDERR_FILENO);
}

char *capture_end(void)
{
    char *text = calloc(1, 4096);

    assert_non_null(text);
    assert_int_equal(dup2(standard_error, STDERR_FILENO), STDERR_FILENO);
    assert_true(pread(captured, text, 4095, 0) >= 0);
    close(standard_error);
    close(captured);
    return text;
}

int count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

uint64_t taken(int fd)
{
    eventfd_t n = 0;

    return eventfd_read(fd, &n) == 0 ? n : 0;
}

uint64_t await(int fd)
{
    struct pollfd poller = { .fd = fd, .events = POLLIN };

    assert_int_equal(poll(&poller, 1, 20000), 1);
    return taken(fd);
}
