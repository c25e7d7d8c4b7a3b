/* run.c: runs the checks of servers. */
#include <stdlib.h>
#include <time.h>

#include "../options.h"
#include "judge.h"

static const struct check survey_check = {
    .is = { "survey", "VU-INFO-2", "the server can be asked what it is" },
    .needs = CHECK_BARE,
    .run = survey,
};

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void print_transcript(void *judge, FILE *to, const char *indent)
{
    judge_transcript(judge, to, indent);
}

static enum verdict run_one(struct judge *j, const struct check *check, const struct options *o, struct report *report)
{
    double start = now();
    enum verdict verdict = judge_run(j, check);

    if (!j->harmed)
        verdict = option_verdict(o, &check->is, verdict);
    report_check(report, &check->is, verdict, j->text, now() - start, print_transcript, j);
    return verdict;
}

static unsigned planned(const struct options *o)
{
    unsigned n = 1;

    for (unsigned i = 0; server_check(i) != NULL; i++)
        n += option_wants(o, server_check(i));
    return n;
}

static void run_all(struct judge *j, const struct options *o, struct report *report)
{
    bool usable;

    report->planned = planned(o);
    report_begin(report);
    usable = run_one(j, &survey_check, o, report) == PASSED;
    for (unsigned i = 0; server_checks[i] != NULL; i++) {
        for (const struct check *check = server_checks[i]; check->is.name != NULL; check++) {
            if (!option_wants(o, &check->is))
                continue;
            if (usable)
                run_one(j, check, o, report);
            else
                report_check(report, &check->is, SKIPPED, "the survey failed", 0, NULL, NULL);
        }
    }
}

int judge_server(const struct options *o, struct report *report)
{
    struct target target;
    struct judge judge;
    int err = 0;

    if (o->server != NULL)
        target_socket(&target, o->server);
    else
        err = target_command(&target, o->spawn);
    target.once = o->once;
    if (err == 0)
        err = judge_init(&judge, &target, o->timeout_ms);
    if (err != 0) {
        fprintf(stderr, "outboard conform: cannot start the judgement: %s\n", strerror(-err));
        target_free(&target);
        return 125;
    }
    judge.facts.has |= (o->spawn != NULL ? NEED_SPAWN : 0) | (o->once ? 0 : NEED_NEXT);
    run_all(&judge, o, report);
    judge_free(&judge);
    target_free(&target);
    return 0;
}
