/* check.h: how `outboard conform --client` judges a client, what a check is, and what it can do.
 *
 * Theory of operation. The judge is a server, with the device of model.h. Clients connect to it, again and again: by
 * themselves, or as a program that is started for each connection and ended after it. The first session is the
 * baseline: nothing is unusual in it. What kinds of commands came (kinds.h) and how the session ended is what the
 * client does. It ends in one of three ways: the program exits, the client closes the connection, or it lives on and
 * is quiet. Then there are three sorts of checks:
 *
 *   Rules are about what clients send. Every command of every session is held to all of them, but in sessions with a
 *   fault. A rule passes if there was something to judge and nothing was wrong; it is skipped if there was nothing.
 *
 *   Variations are sessions in which the judge does what is legal and unusual. The client passes if it does what it
 *   does in the baseline: all those kinds of commands, the same end. (A check may except commands that the variation
 *   makes impossible.) Some look at more: what the client answers to the server's commands, what is in its memory,
 *   which descriptors it still holds.
 *
 *   Faults are sessions in which the judge does what a server must not. The client passes if its program ends with a
 *   status other than that of the baseline, or if it closes the connection before it has done all that it does in the
 *   baseline; or, where the check says so, if it can be seen not to use what it must not use. It fails if it goes on to
 *   the same end; by any signal; and if its program does nothing any more and does not end. If it lives on in the
 *   baseline, or fails there, too, since it wants another device, or comes by itself and has done everything, nobody
 *   outside can see what it made of the fault: skipped.
 *
 * Nothing is judged by time, with two exceptions. What has to happen happens within --timeout; a client that sends
 * nothing for that long in the baseline lives on. And one that lives on, and has done all that it does, is quiet after
 * QUIET_MS, since no event tells that a client has nothing more to say.
 *
 * A check sets up t->model (a new one for each), and then serves: the client is started, and has connected, when the
 * first command is waited for. Commands that a check does not care for are answered by the model. The first want that
 * is not met ends the check (longjmp). Messages, replies and descriptors that it gets are released with it. */
#ifndef CONFORM_CLIENT_CHECK_H
#define CONFORM_CLIENT_CHECK_H

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "../report.h"
#include "../transcript.h"
#include "channel.h"
#include "kinds.h"
#include "model.h"
#include "program.h"

/* Long against what a client needs between two commands, short against a user's patience. */
#define QUIET_MS 1000

#define MAX_USUAL_MAPS 256

struct trial;

struct client_check {
    struct check_name is;
    /* On a connection of its own; NULL: a rule. */
    void (*run)(struct trial *t);
    bool fault; /* the judge does what a server must not: rules do not hold */
    /* Judges a command of the client's by trial_wrong(); whether it is one that the rule is about. */
    bool (*rule)(struct trial *t, const struct ob_raw_message *m);
    const char *unseen; /* why the rule is skipped: "the client sent no DMA_MAP" */
};

/* The entries of tables, which end with a check without a name. */
#define VARIATION(name, clause, title, function)       \
    {                                                  \
        .is = { name, clause, title }, .run = function \
    }
#define FAULT(name, clause, title, function)                          \
    {                                                                 \
        .is = { name, clause, title }, .run = function, .fault = true \
    }
#define RULE(name, clause, title, function, seen_nothing)                       \
    {                                                                           \
        .is = { name, clause, title }, .rule = function, .unseen = seen_nothing \
    }

extern const struct client_check *const client_checks[]; /* ends with NULL */

enum end { RUNS, EXITED, CLOSED, QUIET };

struct ending {
    enum end how;
    int status; /* of the program, as from waitpid(2) */
};

/* A map that there is in the baseline with bus mastering on. */
struct usual_map {
    uint64_t address;
    unsigned sorts;  /* MAP_* */
    bool ends, goes; /* it is unmapped; and the client does other things after that */
};

/* What a rule has found so far. */
struct finding {
    bool seen, wrong, always; /* always: wrong in the baseline already */
    char text[400];
    struct transcript *transcript; /* of the first that was wrong */
};

struct trial {
    struct model model;
    /* How a reply leaves; NULL: whole, at once. */
    void (*shape)(struct trial *t, const void *bytes, size_t size, const int *fds, unsigned nfds);
    int timeout_ms;
    /* The baseline. */
    bool known;
    struct ending usual;
    struct kinds usual_kinds;
    unsigned usual_count; /* of its commands */
    struct usual_map usual_maps[MAX_USUAL_MAPS];
    unsigned n_usual_maps;
    enum { NOT_TRIED, SERVED, NOT_SERVED } dma; /* whether DMA_READ succeeds at all */
    bool used_dma;                              /* in this check */
    /* Private to trial.c. */
    const struct client_check *check;
    jmp_buf out;
    int verdict; /* enum verdict */
    char text[600];
    struct transcript *transcript;
    struct finding *findings, *finding; /* of all rules; of the one that judges */
    const struct client_check *rule;    /* which judges */
    char broken[400];                   /* what rules of the check's own clause have found in this session */
    char broken_new[400];               /* and any that the baseline did not break */
    int listener;
    struct program program;
    bool came;                 /* a client has connected, in any check */
    bool connected, over, cut; /* cut: the judge closed the connection */
    struct channel main, twin;
    pid_t peer;
    struct ending end;
    struct kinds kinds;
    unsigned count;                            /* of commands taken */
    int64_t news;                              /* when the last command of a new kind came, ms */
    struct ob_raw_message *commands, *answers; /* that came and were not taken */
    bool answered_on_twin, asked_on_twin;      /* the last answer; any command */
    struct held *held;
    uint16_t next_id;
};

/* --- Ends -------------------------------------------------------------------------------------------------------- */

void trial_fail(struct trial *t, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));
void trial_skip(struct trial *t, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));
/* The rule that is being judged is broken. */
void trial_wrong(struct trial *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Ends the check unless the condition holds. The text says what was wanted and what is. */
#define trial_want(t, condition, ...)   \
    do {                                \
        if (!(condition))               \
            trial_fail(t, __VA_ARGS__); \
    } while (0)

/* Serves to the end; then the client has to have done what it does in the baseline, but for commands whose BIT() is in
 * `but`, and to have broken no rule of the check's clause. */
#define BIT(command) (1u << (command))
void trial_want_same(struct trial *t, uint32_t but);
/* The same for an offer that a client need not be content with: it may give the server up, and the check is skipped. */
void trial_want_held(struct trial *t, uint32_t but);
/* Serves to the end; then the client has to have noticed the fault. */
void trial_want_refused(struct trial *t, const char *fault);
/* Serves to the end, whatever that is, so long as it is one. */
void trial_want_survived(struct trial *t, const char *fault);
/* How the session ended, or what the client is doing, for a report. The text is good until the next call. */
const char *trial_end_text(const struct trial *t);

/* --- Sessions ---------------------------------------------------------------------------------------------------- */

/* The client's next command, not answered; NULL: the session is over. */
struct ob_raw_message *trial_next(struct trial *t);
/* Whether the next command is here already. */
bool trial_waits(const struct trial *t);
/* Serves until such a command comes. Skips the check if the client does not send it in the baseline either. */
struct ob_raw_message *trial_await(struct trial *t, uint16_t command);
/* The same for REGION_READ, of a register if the client reads any: other failures than those of reading configuration
 * space, which clients do first, are no reason for them to give up the device. */
struct ob_raw_message *trial_await_read(struct trial *t);
/* The same for one that satisfies `is`; `what` names it. Skips the check if the session ends before. */
struct ob_raw_message *trial_await_where(struct trial *t, bool (*is)(struct trial *t, const struct ob_raw_message *m),
                                         const char *what);
/* Has the model execute the command. The reply is the check's to change and to send. */
struct reply *trial_reply(struct trial *t, struct ob_raw_message *m);
/* The same for a check that changes what a success says: skipped if the device refuses the command. */
struct reply *trial_success(struct trial *t, struct ob_raw_message *m);
/* Does nothing if the command was posted. */
void trial_send(struct trial *t, const struct reply *reply);
/* Executes and answers. */
void trial_answer(struct trial *t, struct ob_raw_message *m);
/* Refuses without executing. */
void trial_refuse(struct trial *t, const struct ob_raw_message *m, uint32_t error);
/* Answers everything until the session is over. */
void trial_serve(struct trial *t);
/* Sends bytes as they are, on the main socket. */
void trial_send_bytes(struct trial *t, const void *bytes, size_t size, const int *fds, unsigned nfds);
/* The same, in segments of their own: one ends at each of the offsets. */
void trial_send_cut(struct trial *t, const void *bytes, size_t size, const int *fds, unsigned nfds, const size_t *cuts,
                    unsigned n);
/* Closes the connection. */
void trial_cut(struct trial *t);
/* Begins anew, with a new model and another connection. */
void trial_again(struct trial *t);

/* --- Commands of the server's ------------------------------------------------------------------------------------- */

/* Memory of the client's to do DMA with. */
enum {
    MAP_READ = VFIO_DMA_MAP_FLAG_READ,
    MAP_WRITE = VFIO_DMA_MAP_FLAG_WRITE,
    MAP_FD = 1 << 2,    /* came with a descriptor */
    MAP_NO_FD = 1 << 3, /* came without */
    MAP_NO_READ = 1 << 4,
    MAP_NO_WRITE = 1 << 5,
};
/* Whether the client has memory of these sorts in the baseline. */
bool trial_has_map(const struct trial *t, unsigned sorts);
/* Serves until the device may do DMA to memory of all these sorts, and returns it. Skips the check if the client has
 * none in the baseline. */
struct model_map trial_await_map(struct trial *t, unsigned sorts);
/* An address at which the client has mapped nothing. */
uint64_t trial_hole(const struct trial *t);
#define TRIAL_FIRST_ID 0x9000u
/* Sends DMA_READ or DMA_WRITE with `size` bytes of data; returns its id. On the twin socket, if there is one. */
uint16_t trial_dma(struct trial *t, uint16_t command, uint32_t flags, uint64_t address, uint64_t count,
                   const void *data, size_t size);
/* The body of the check that a client fails which serves no DMA_READ: others, that need one, are skipped then. */
void dma_served(struct trial *t);
/* Serves until the client answers. */
struct ob_raw_message *trial_dma_reply(struct trial *t, const char *what);
/* Waits for the answer without answering the client's own commands. */
struct ob_raw_message *trial_dma_reply_now(struct trial *t, const char *what);
/* Whether it is a refusal; ends the check if it is neither that nor a success. */
bool trial_refused(struct trial *t, const struct ob_raw_message *reply);

/* --- What is released with the check ------------------------------------------------------------------------------ */

/* A pair of connected sockets: `mine` reads the end when the last copy of `theirs` is closed. */
void trial_pair(struct trial *t, int *mine, int *theirs);
/* Closes one of the check's descriptors now. */
void trial_give(struct trial *t, int fd);
/* Serves until the other end of a pair's `mine` is closed everywhere; fails if the session ends as usual before. */
void trial_want_hangup(struct trial *t, int mine, const char *what);
void *trial_alloc(struct trial *t, size_t size);
/* What the client has mapped of a region's memory. Skips the check if that cannot be seen. */
int trial_mappings(struct trial *t, unsigned region, struct file_range *list, int max);

/* --- Fields of messages: 0 if they are not there ------------------------------------------------------------------ */

static inline uint64_t get_field(const struct ob_raw_message *m, size_t offset, size_t width)
{
    uint64_t value = 0;

    if (offset + width <= m->size)
        memcpy(&value, m->payload + offset, width);
    return value;
}

static inline uint16_t get16(const struct ob_raw_message *m, size_t offset)
{
    return (uint16_t)get_field(m, offset, 2);
}

static inline uint32_t get32(const struct ob_raw_message *m, size_t offset)
{
    return (uint32_t)get_field(m, offset, 4);
}

static inline uint64_t get64(const struct ob_raw_message *m, size_t offset)
{
    return get_field(m, offset, 8);
}

/* --- The rest is for run.c ---------------------------------------------------------------------------------------- */

/* `command` NULL: clients come by themselves. 0 or -errno. */
int trial_init(struct trial *t, int listener, char **command, int timeout_ms);
void trial_free(struct trial *t);
/* Runs one check; t->text says why it did not pass. */
enum verdict trial_run(struct trial *t, const struct client_check *check);
/* The baseline: the body of a check of its own, which comes first. */
void trial_baseline(struct trial *t);
/* The nth of all checks; NULL: there are no more. */
const struct client_check *client_check_at(unsigned n);
/* What the nth, a rule, has found; *text says why it did not pass. */
enum verdict trial_finding(const struct trial *t, unsigned n, const char **text);

/* --- And for trial.c and session.c, of each other ----------------------------------------------------------------- */

/* Judges a command by all rules. */
void trial_judge(struct trial *t, const struct ob_raw_message *m);
struct ob_raw_message *trial_hold(struct trial *t, struct ob_raw_message *m);
/* Ends the session and the program, and releases what the model has. */
void trial_disconnect(struct trial *t);

#endif
