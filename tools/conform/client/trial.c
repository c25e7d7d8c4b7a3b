/* trial.c: one check after the other: what it wants, what it holds, what the rules have found. */
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- Ends -------------------------------------------------------------------------------------------------------- */

static void leave(struct trial *t, int verdict, const char *format, va_list args) __attribute__((noreturn));
static void leave(struct trial *t, int verdict, const char *format, va_list args)
{
    vsnprintf(t->text, sizeof(t->text), format, args);
    t->verdict = verdict;
    longjmp(t->out, 1);
}

void trial_fail(struct trial *t, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    leave(t, FAILED, format, args);
}

void trial_skip(struct trial *t, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    leave(t, SKIPPED, format, args);
}

static bool by_signal(const struct ending *end)
{
    return end->how == EXITED && WIFSIGNALED(end->status);
}

const char *trial_end_text(const struct trial *t)
{
    static char text[160];
    const struct ending *end = &t->end;

    switch (end->how) {
    case EXITED:
        if (by_signal(end))
            snprintf(text, sizeof(text), "it died by signal %d (%s)", WTERMSIG(end->status),
                     strsignal(WTERMSIG(end->status)));
        else
            snprintf(text, sizeof(text), "it ended with status %d", WEXITSTATUS(end->status));
        break;
    case CLOSED:
        snprintf(text, sizeof(text), "it closed the connection");
        break;
    case QUIET:
        snprintf(text, sizeof(text), "it is connected and sends nothing new");
        break;
    default:
        snprintf(text, sizeof(text), "the session goes on");
    }
    return text;
}

static bool ends_as_usual(const struct trial *t)
{
    return t->end.how == t->usual.how && (t->end.how != EXITED || t->end.status == t->usual.status);
}

void trial_want_same(struct trial *t, uint32_t but)
{
    const struct kind *missing;
    char what[120];

    trial_serve(t);
    trial_want(t, t->broken[0] == '\0', "%s", t->broken);
    missing = kinds_missing(&t->usual_kinds, &t->kinds, but);
    if (missing != NULL) {
        kind_print(missing, what, sizeof(what));
        trial_fail(t, "the client should do what it does otherwise, and sent no %s: %s", what, trial_end_text(t));
    }
    trial_want(t, ends_as_usual(t), "the client should end as it does otherwise: %s", trial_end_text(t));
}

void trial_want_held(struct trial *t, uint32_t but)
{
    trial_serve(t);
    if (t->broken[0] == '\0' && !by_signal(&t->end) && (t->end.how != QUIET || t->usual.how == QUIET) &&
        !ends_as_usual(t))
        trial_skip(t, "the client gives such a server up: %s", trial_end_text(t));
    trial_want_same(t, but);
}

void trial_want_survived(struct trial *t, const char *fault)
{
    trial_serve(t);
    trial_want(t, !by_signal(&t->end), "%s: the client should refuse that or bear with it: %s", fault,
               trial_end_text(t));
    trial_want(t, t->end.how != QUIET || t->usual.how == QUIET, "%s: the client neither goes on nor ends for %d ms",
               fault, t->timeout_ms);
}

void trial_want_refused(struct trial *t, const char *fault)
{
    trial_want_survived(t, fault);
    if (t->usual.how == EXITED && t->usual.status != 0)
        trial_skip(t, "the client fails otherwise, too: nobody outside can see what it made of this");
    if (t->usual.how == EXITED) {
        trial_want(t, t->end.how != EXITED || t->end.status != t->usual.status,
                   "%s: the client should end the connection or fail, and went on to the end as if all was well",
                   fault);
        return;
    }
    if (t->end.how == QUIET || t->cut)
        trial_skip(t, "the client lives on: nobody outside can see what it made of this");
    if (t->end.how == CLOSED && kinds_missing(&t->usual_kinds, &t->kinds, 0) == NULL)
        trial_skip(t, "the client did all that it does: nobody outside can see what it made of this");
}

/* --- What is released -------------------------------------------------------------------------------------------- */

struct held {
    struct held *next;
    enum { HELD_FD, HELD_MEMORY, HELD_MESSAGE, HELD_REPLY } kind;
    int fd;
    void *memory;
    struct reply reply;
};

static struct held *hold(struct trial *t, int kind)
{
    struct held *h = calloc(1, sizeof(*h));

    if (h == NULL)
        trial_fail(t, "the judge is out of memory");
    h->kind = kind;
    h->next = t->held;
    t->held = h;
    return h;
}

static void release_all(struct trial *t)
{
    while (t->held != NULL) {
        struct held *h = t->held;

        t->held = h->next;
        if (h->kind == HELD_FD && h->fd >= 0)
            close(h->fd);
        if (h->kind == HELD_MEMORY)
            free(h->memory);
        if (h->kind == HELD_MESSAGE)
            ob_raw_message_free(h->memory);
        if (h->kind == HELD_REPLY)
            reply_free(&h->reply);
        free(h);
    }
}

struct ob_raw_message *trial_hold(struct trial *t, struct ob_raw_message *m)
{
    hold(t, HELD_MESSAGE)->memory = m;
    return m;
}

struct reply *trial_reply(struct trial *t, struct ob_raw_message *m)
{
    struct held *h = hold(t, HELD_REPLY);

    model_execute(&t->model, m, &h->reply);
    return &h->reply;
}

struct reply *trial_success(struct trial *t, struct ob_raw_message *m)
{
    struct reply *reply = trial_reply(t, m);

    if (reply->header.flags & OB_RAW_ERROR)
        trial_skip(t, "the device refuses the client's %s", command_name(m->header.command));
    return reply;
}

void *trial_alloc(struct trial *t, size_t size)
{
    void *memory = calloc(1, size);

    if (memory == NULL)
        trial_fail(t, "the judge is out of memory");
    hold(t, HELD_MEMORY)->memory = memory;
    return memory;
}

void trial_pair(struct trial *t, int *mine, int *theirs)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        trial_fail(t, "the judge has no sockets: %s", strerror(errno));
    hold(t, HELD_FD)->fd = *mine = pair[0];
    hold(t, HELD_FD)->fd = *theirs = pair[1];
}

void trial_give(struct trial *t, int fd)
{
    for (struct held *h = t->held; h != NULL; h = h->next) {
        if (h->kind == HELD_FD && h->fd == fd) {
            close(fd);
            h->fd = -1;
        }
    }
}

static bool hung_up(int fd)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };

    return poll(&pfd, 1, 0) == 1 && (pfd.revents & POLLHUP);
}

void trial_want_hangup(struct trial *t, int mine, const char *what)
{
    struct ob_raw_message *m;

    while (!hung_up(mine)) {
        m = trial_next(t);
        if (m == NULL && hung_up(mine) && !ends_as_usual(t))
            return; /* the client had enough */
        trial_want(t, m != NULL, "%s: the descriptor should be closed, and is still open; %s", what, trial_end_text(t));
        trial_answer(t, m);
    }
}

int trial_mappings(struct trial *t, unsigned region, struct file_range *list, int max)
{
    int n = program_mappings(&t->program, t->peer, t->model.region[region].fd, list, max);

    if (n < 0)
        trial_skip(t, "the judge may not look at what the client's process has mapped");
    return n;
}

/* --- Rules ------------------------------------------------------------------------------------------------------- */

const struct client_check *client_check_at(unsigned n)
{
    for (unsigned i = 0; client_checks[i] != NULL; i++) {
        for (const struct client_check *check = client_checks[i]; check->is.name != NULL; check++) {
            if (n-- == 0)
                return check;
        }
    }
    return NULL;
}

void trial_judge(struct trial *t, const struct ob_raw_message *m)
{
    unsigned n = 0;

    if (t->check->fault)
        return;
    for (unsigned i = 0; client_checks[i] != NULL; i++) {
        for (const struct client_check *check = client_checks[i]; check->is.name != NULL; check++, n++) {
            if (check->rule == NULL)
                continue;
            t->rule = check;
            t->finding = &t->findings[n];
            t->finding->seen |= check->rule(t, m);
        }
    }
}

void trial_wrong(struct trial *t, const char *format, ...)
{
    char text[sizeof(t->finding->text)];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (strcmp(t->rule->is.clause, t->check->is.clause) == 0 && t->broken[0] == '\0')
        strcpy(t->broken, text);
    if (t->broken_new[0] == '\0' && !t->finding->always)
        strcpy(t->broken_new, text);
    if (t->finding->wrong)
        return;
    t->finding->wrong = true;
    strcpy(t->finding->text, text);
    t->finding->transcript = transcript_copy(t->transcript);
}

enum verdict trial_finding(const struct trial *t, unsigned n, const char **text)
{
    const struct finding *finding = &t->findings[n];

    *text = finding->wrong ? finding->text : client_check_at(n)->unseen;
    return finding->wrong ? FAILED : finding->seen ? PASSED : SKIPPED;
}

/* --- A run ------------------------------------------------------------------------------------------------------- */

void trial_baseline(struct trial *t)
{
    trial_serve(t);
    trial_want(t, kinds_has_command(&t->kinds, OB_RAW_VERSION), "the client sent no VERSION: %s", trial_end_text(t));
    trial_want(t, t->kinds.count > 1, "the client sent VERSION and nothing else: %s", trial_end_text(t));
    trial_want(t, !by_signal(&t->end), "the client should get through this session: %s", trial_end_text(t));
    t->known = true;
    t->usual = t->end;
    t->usual_kinds = t->kinds;
    t->usual_count = t->count;
    for (unsigned n = 0; client_check_at(n) != NULL; n++)
        t->findings[n].always = t->findings[n].wrong;
    /* Drivers of one kind of device do so. */
    if (t->end.how == EXITED && t->end.status != 0)
        trial_skip(t, "the client is not content with a device like this: %s; it is judged by what it did until then",
                   trial_end_text(t));
}

static void begin(struct trial *t)
{
    int err = model_init(&t->model);

    t->program.ended = false;
    t->connected = t->over = t->cut = false;
    t->end = (struct ending){ .how = RUNS };
    t->kinds.count = 0;
    t->broken[0] = t->broken_new[0] = '\0';
    t->count = 0;
    t->next_id = 0;
    t->answered_on_twin = t->asked_on_twin = false;
    t->shape = NULL;
    if (err != 0)
        trial_fail(t, "the judge has no memory or descriptors for the device: %s", strerror(-err));
}

void trial_again(struct trial *t)
{
    trial_disconnect(t);
    release_all(t);
    begin(t);
}

static void run(struct trial *t, const struct client_check *check)
{
    t->check = check;
    t->used_dma = false;
    t->verdict = PASSED;
    t->text[0] = '\0';
    transcript_clear(t->transcript);
    if (setjmp(t->out) == 0) {
        begin(t);
        check->run(t);
    }
    trial_disconnect(t);
    release_all(t);
    if (check->run == dma_served)
        t->dma = t->verdict == FAILED ? NOT_SERVED : SERVED;
}

/* Whether a check failed that needs a client which serves DMA_READ, and this one does not. */
static bool lacks_dma(struct trial *t, const struct client_check *check)
{
    static const struct client_check served = { .is = { "dma-served", "VU-DMA-11", "" }, .run = dma_served };
    struct transcript *transcript = t->transcript;
    char text[sizeof(t->text)];

    if (t->verdict != FAILED || !t->used_dma || check->run == dma_served)
        return false;
    if (t->dma == NOT_TRIED) {
        memcpy(text, t->text, sizeof(text));
        t->transcript = transcript_new();
        run(t, &served);
        transcript_free(t->transcript);
        t->transcript = transcript;
        t->verdict = FAILED;
        memcpy(t->text, text, sizeof(text));
    }
    return t->dma == NOT_SERVED;
}

enum verdict trial_run(struct trial *t, const struct client_check *check)
{
    bool died;

    run(t, check);
    died = t->program.ended && WIFSIGNALED(t->program.status);
    if (died && t->verdict != FAILED) {
        /* Whatever the check was about. */
        snprintf(t->text, sizeof(t->text), "the client died by signal %d (%s)", WTERMSIG(t->program.status),
                 strsignal(WTERMSIG(t->program.status)));
        t->verdict = FAILED;
    } else if (!died && lacks_dma(t, check)) {
        snprintf(t->text, sizeof(t->text), "the client serves no DMA_READ");
        t->verdict = SKIPPED;
    }
    return (enum verdict)t->verdict;
}

int trial_init(struct trial *t, int listener, char **command, int timeout_ms)
{
    unsigned n = 0;

    while (client_check_at(n) != NULL)
        n++;
    *t = (struct trial){ .listener = listener, .timeout_ms = timeout_ms, .transcript = transcript_new() };
    t->program = (struct program){ .command = command, .pid = -1, .pidfd = -1 };
    t->findings = calloc(n + 1, sizeof(*t->findings));
    channel_open(&t->main, -1);
    channel_open(&t->twin, -1);
    return t->transcript == NULL || t->findings == NULL ? -ENOMEM : 0;
}

void trial_free(struct trial *t)
{
    for (unsigned i = 0; client_check_at(i) != NULL && t->findings != NULL; i++)
        transcript_free(t->findings[i].transcript);
    free(t->findings);
    transcript_free(t->transcript);
}
