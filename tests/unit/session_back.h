/* A back for the session's tests: a device of one number on a real vault, and a client at the other end of the socket.
 *
 * Region 0: a write of 4 bytes at 0 mixes the value into the number; a read of 8 bytes at 0 gives the number. At 8 a
 * read is kept, at 16 one is refused, and one at 24 has two pieces of 4 bytes, each of which mixes itself in and is a
 * commit of its own. A read of any size at 32 gives bytes that count up. DMA_MAP takes its descriptor; GET_REGION_INFO
 * answers with one. */
#ifndef TEST_SESSION_BACK_H
#define TEST_SESSION_BACK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "device/vault.h"
#include "session/session.h"

enum { BACK_MIX = 0, BACK_KEEP = 8, BACK_REFUSE = 16, BACK_PIECES = 24, BACK_BYTES = 32 };

/* What a commit makes current. */
struct back_state {
    uint64_t number;
    uint32_t maps;
    uint64_t map_keys[32];
};

struct back {
    struct ob_session s;
    struct ob_vault vault;
    int client;    /* our end of the connection */
    int region_fd; /* what GET_REGION_INFO carries */
    int fds[32];   /* of DMA_MAP; -1 after a crash */
    unsigned answered, opened;
    int answer_err;
    int keep_socket; /* the holder's end, or -1 */
};

/* vault_fd, journal_fd -1: new ones. `holder` as in ob_holder_init(). */
void back_open(struct back *b, int vault_fd, int journal_fd, int holder);
void back_close(struct back *b);
struct back_state *back_state(struct back *b);
/* A new connection; with VERSION if `negotiate`. */
void back_connect(struct back *b, bool negotiate);
/* A new connection whose client takes a twin socket: its end of it. */
int back_connect_twin(struct back *b);
/* Reads until nothing has arrived, and goes on with whatever is ready. 0, or what ended the session. */
int back_run(struct back *b);
uint64_t back_mix(uint64_t number, uint32_t value);

/* Requests: each writes one message to `to` and returns its size. */
size_t put_version(void *to, uint16_t id, uint16_t major);
size_t put_version_text(void *to, uint16_t id, const char *json);
size_t put_read(void *to, uint16_t id, uint64_t offset, uint32_t count);
size_t put_write(void *to, uint16_t id, uint32_t value, bool posted);
size_t put_map(void *to, uint16_t id, uint64_t address);
size_t put_region_info(void *to, uint16_t id);
size_t put_header(void *to, uint16_t id, uint16_t command, uint32_t size, uint32_t flags);

void send_all(int fd, const void *bytes, size_t size);
void send_fd(int fd, const void *bytes, size_t size, int passed);
/* The next reply from the socket, which must be there: its id, error and up to `room` bytes of payload. */
struct ob_header next_reply(int fd, void *payload, size_t room, int *passed);
void expect_reply(int fd, uint16_t id, int error);
void expect_number(int fd, uint16_t id, uint64_t number);
void expect_silence(int fd);

#endif
