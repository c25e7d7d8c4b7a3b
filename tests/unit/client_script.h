/* client_script.h: the server's end of a client's socket, on a thread of its own, that does what a test wants.
 *
 * It answers as a plain device would: BAR0 of 64 KiB of memory, configuration space of 256 bytes, one kind of
 * interrupts with 4 vectors. A test's hook sees every message first. */
#ifndef OB_CLIENT_SCRIPT_H
#define OB_CLIENT_SCRIPT_H

#include <outboard/client.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "protocol/message.h"

#define SCRIPT_BAR_SIZE 65536u
#define SCRIPT_MAX      (1u << 21)

#define ok(call) assert_int_equal((call), 0)

struct script;

/* One message from the client: header, payload and descriptors, which are closed afterwards. Returns true if it has
 * dealt with it, false for the plain answer. On the script's thread: it must not use cmocka's assertions. */
typedef bool script_hook(struct script *script, const struct ob_header *header, const uint8_t *payload, int *fds,
                         unsigned nfds);

struct script {
    script_hook *hook;
    void *ctx;                /* the hook's */
    const char *capabilities; /* of the VERSION reply; NULL: plain */
    int fd;                   /* its end */
    int client_fd;            /* the other, until a client has it */
    int twin;                 /* its end of a twin socket, or -1 */
    pthread_t thread;
    uint8_t memory[SCRIPT_BAR_SIZE];
    atomic_uint messages, commands[32]; /* received, also by command */
    atomic_uint writes;                 /* single ones, in whatever message */
    int descriptors;                    /* open before the test */
    int kept[16];                       /* for hooks */
    unsigned nkept;
    struct ob_header keep;
};

/* Before a client is made: `hook` may be NULL. The thread runs until the client's end is closed. */
void script_start(struct script *script, script_hook *hook);
/* A client on the other end; fails the test if there is none. */
struct ob_client *script_client(struct script *script, const struct ob_client_options *options);
/* The same where it has to fail: with what, and `why` has a line. */
int script_refused(struct script *script, const struct ob_client_options *options, char *why, size_t size);
/* Closes the client (NULL: there is none), waits for the thread, and checks that no descriptor is left. */
void script_end(struct script *script, struct ob_client *client);

/* For hooks. */
/* Sends bytes as they are, with descriptors. */
void script_send(struct script *script, const void *bytes, size_t size, const int *fds, unsigned nfds);
/* A reply: header and payload; `flags` and `error` beside OB_FLAG_REPLY. */
void script_reply(struct script *script, const struct ob_header *to, const void *payload, size_t size, const int *fds,
                  unsigned nfds);
void script_refuse(struct script *script, const struct ob_header *to, uint32_t err);
/* A command of the server's, on its twin socket if there is one. */
void script_command(struct script *script, uint16_t id, uint16_t command, const void *payload, size_t size);
/* The plain answer. */
void script_plain(struct script *script, const struct ob_header *header, const uint8_t *payload);

int script_descriptors(void);

#endif
