/* run.c: listens for clients, and runs the checks. */
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "../../tool.h"
#include "../options.h"
#include "../words.h"
#include "check.h"

static const struct client_check baseline = {
    .is = { "baseline", "VU-CON-26", "the client gets through a session in which nothing is unusual" },
    .run = trial_baseline,
};

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void print_transcript(void *transcript, FILE *to, const char *indent)
{
    transcript_print(transcript, to, indent);
}

static void report_one(struct trial *t, const struct client_check *check, enum verdict verdict, double start,
                       const struct options *o, struct report *report)
{
    report_check(report, &check->is, option_verdict(o, &check->is, verdict), t->text, now() - start, print_transcript,
                 t->transcript);
}

/* The rules have judged every session, so they come last. */
static void report_rules(struct trial *t, bool usable, const struct options *o, struct report *report)
{
    const struct client_check *check;

    for (unsigned i = 0; (check = client_check_at(i)) != NULL; i++) {
        const char *text;
        enum verdict verdict;

        if (check->rule == NULL || !option_wants(o, &check->is))
            continue;
        verdict = trial_finding(t, i, &text);
        if (!usable && verdict == PASSED) {
            verdict = SKIPPED;
            text = "the baseline failed";
        }
        report_check(report, &check->is, option_verdict(o, &check->is, verdict), text, 0,
                     t->findings[i].transcript != NULL ? print_transcript : NULL, t->findings[i].transcript);
    }
}

/* False: there is no client. */
static bool run_all(struct trial *t, const struct options *o, struct report *report)
{
    double start = now();
    enum verdict found = trial_run(t, &baseline);
    const struct client_check *check;

    if (!t->came)
        return false;
    report->planned = 1;
    for (unsigned i = 0; client_check(i) != NULL; i++)
        report->planned += option_wants(o, client_check(i));
    report_begin(report);
    report_one(t, &baseline, found, start, o, report);
    for (unsigned i = 0; (check = client_check_at(i)) != NULL; i++) {
        if (check->run == NULL || !option_wants(o, &check->is))
            continue;
        start = now();
        if (t->known)
            report_one(t, check, trial_run(t, check), start, o, report);
        else
            report_check(report, &check->is, SKIPPED, "the baseline failed", 0, NULL, NULL);
    }
    report_rules(t, t->known, o, report);
    return true;
}

/* A socket that nobody listens at any more is in nobody's way. */
static void remove_stale(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0 && errno == ECONNREFUSED)
        unlink(address->sun_path);
    if (fd >= 0)
        close(fd);
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    remove_stale(&address);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 8) != 0) {
        int err = -errno;

        close(fd);
        return err;
    }
    return fd;
}

static int no_judgement(const char *what, const char *why)
{
    fprintf(stderr, "outboard conform: %s: %s\n", what, why);
    return STATUS_FAILED;
}

int judge_client(const struct options *o, struct report *report)
{
    char **command = NULL;
    bool replaced = true;
    struct trial trial;
    int listener, err;

    if (o->spawn != NULL && ((command = words_split(o->spawn, o->client, &replaced)) == NULL || !replaced)) {
        words_free(command);
        return no_judgement("--spawn", "a client's command needs {socket}, the path to connect to");
    }
    listener = listen_at(o->client);
    if (listener < 0) {
        words_free(command);
        return no_judgement(o->client,
                            listener == -EADDRINUSE ? "it exists, or somebody listens there" : strerror(-listener));
    }
    err = trial_init(&trial, listener, command, o->timeout_ms);
    if (err != 0)
        err = no_judgement("cannot start the judgement", strerror(-err));
    else if (!run_all(&trial, o, report))
        err = no_judgement(o->client, trial.text);
    trial_free(&trial);
    close(listener);
    unlink(o->client);
    words_free(command);
    return err;
}
