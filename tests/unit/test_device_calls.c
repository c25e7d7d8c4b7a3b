/* How many system calls the control loop makes for a request: with a twin socket on which nothing comes, and without.
 */
#include "device_bench.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Those of the server, counted while it runs. */
static bool counting;
static unsigned calls;

static long counted(long result)
{
    calls += counting;
    return result;
}

ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
    return counted(syscall(SYS_recvmsg, fd, msg, flags));
}

ssize_t recv(int fd, void *bytes, size_t len, int flags)
{
    return counted(syscall(SYS_recvfrom, fd, bytes, len, flags, NULL, NULL));
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return counted(syscall(SYS_sendmsg, fd, msg, flags));
}

ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    return counted(syscall(SYS_sendto, fd, bytes, len, flags, NULL, 0));
}

int epoll_wait(int fd, struct epoll_event *events, int max, int timeout)
{
    return (int)counted(syscall(SYS_epoll_pwait, fd, events, max, timeout, NULL, 0));
}

int epoll_ctl(int fd, int op, int other, struct epoll_event *event)
{
    return (int)counted(syscall(SYS_epoll_ctl, fd, op, other, event));
}

static const struct ob_reg regs[] = {
    { .name = "ZERO", .off = 0, .width = 4 },
    OB_REG_END,
};

OB_CLASS(calls, .pci = { .vendor = 0x1234, .device = 1 }, .bars[0] = OB_BAR_REGS(0x1000, regs));

/* The request is there before the server looks, and its reply before the client does. */
static struct ob_raw_message *call(struct bench *bench, uint16_t command, const void *payload, size_t size, int timeout)
{
    struct ob_raw_message *reply = NULL;
    uint16_t id;

    assert_int_equal(ob_raw_request(&bench->raw, command, 0, payload, size, NULL, 0, &id), 0);
    counting = true;
    assert_true(ob_server_run(bench->dev, timeout) >= 0);
    counting = false;
    assert_int_equal(ob_raw_reply(&bench->raw, id, command, &reply), 0);
    return reply;
}

/* For 1000 reads of a register. */
static unsigned calls_of(bool offer, int timeout)
{
    static const char twin_version[] = "\0\0\0\0{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}";
    const struct ob_raw_region read = { .offset = 0, .region = 0, .count = 4 };
    struct bench bench;
    struct ob_raw twin;

    bench_new(&bench, &ob_class_calls, NULL);
    ob_raw_init(&twin, -1);
    struct ob_raw_message *reply = call(&bench, OB_RAW_VERSION, twin_version, offer ? sizeof(twin_version) : 4, 1000);
    assert_int_equal(ob_raw_take_twin(reply, &twin), offer ? 0 : -ENOENT);
    ob_raw_message_free(reply);
    calls = 0;
    for (int i = 0; i < 1000; i++)
        ob_raw_message_free(call(&bench, OB_RAW_REGION_READ, &read, sizeof(read), timeout));
    bench_stop(&bench);
    ob_raw_close(&twin);
    return calls;
}

/* A twin socket on which nothing comes costs no call. */
static void test_calls(void **unused)
{
    assert_int_equal(calls_of(false, 1000), 3000);
    assert_int_equal(calls_of(true, 1000), 3000);
    unsigned without = calls_of(false, 0);
    assert_in_range(without, 2000, 2100); /* now and then it looks at everything */
    assert_int_equal(calls_of(true, 0), without);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
