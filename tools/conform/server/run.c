/* run.c: runs the checks of servers. */
#include <stdlib.h>
#include <time.h>

#include "../../tool.h"
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

static void report_one(struct judge *j, const struct check *check, enum verdict verdict, double start,
                       const struct options *o, struct report *report)
{
    if (!j->harmed) /* which is no way to disagree with a recommendation */
        verdict = option_verdict(o, &check->is, verdict);
    report_check(report, &check->is, verdict, j->text, now() - start, print_transcript, j);
}

static unsigned planned(const struct options *o)
{
    unsigned n = 1;

    for (unsigned i = 0; server_check(i) != NULL; i++)
        n += option_wants(o, server_check(i));
    return n;
}

/* False: there is no server. */
static bool run_all(struct judge *j, const struct options *o, struct report *report)
{
    double start = now();
    enum verdict found = judge_run(j, &survey_check);

    if (!j->first->reached)
        return false;
    report->planned = planned(o);
    report_begin(report);
    report_one(j, &survey_check, found, start, o, report);
    for (unsigned i = 0; server_checks[i] != NULL; i++) {
        for (const struct check *check = server_checks[i]; check->is.name != NULL; check++) {
            if (!option_wants(o, &check->is))
                continue;
            start = now();
            if (found == PASSED)
                report_one(j, check, judge_run(j, check), start, o, report);
            else
                report_check(report, &check->is, SKIPPED, "the survey failed", 0, NULL, NULL);
        }
    }
    return true;
}

int judge_server(const struct options *o, struct report *report)
{
    struct target target;
    struct judge judge;
    bool reached;
    int err = 0;

    if (o->server != NULL)
        target_socket(&target, o->server);
    else
        err = target_command(&target, o->spawn);
    target.once = o->once;
    if (err == 0)
        err = judge_init(&judge, &target, o->timeout_ms);
    if (err != 0) {
        if (err == -EINVAL)
            fprintf(stderr, "outboard conform: --spawn: there is no program in '%s'\n", o->spawn);
        else
            fprintf(stderr, "outboard conform: cannot start the judgement: %s\n", strerror(-err));
        target_free(&target);
        return STATUS_FAILED;
    }
    judge.facts.has |= (o->spawn != NULL ? NEED_SPAWN : 0) | (o->once ? 0 : NEED_NEXT);
    reached = run_all(&judge, o, report);
    if (!reached && o->server != NULL)
        fprintf(stderr, "outboard conform: cannot connect to %s: is the server running, and is this its socket?\n",
                o->server);
    else if (!reached)
        fprintf(stderr, "outboard conform: %s: it does not listen at the socket that it is given\n", o->spawn);
    judge_free(&judge);
    target_free(&target);
    return reached ? 0 : STATUS_FAILED;
}
