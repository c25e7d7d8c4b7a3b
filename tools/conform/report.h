/* report.h: what a run prints: TAP, or JUnit's XML. */
#ifndef CONFORM_REPORT_H
#define CONFORM_REPORT_H

#include <stdio.h>

/* A check of a server or of a client, for people. */
struct check_name {
    const char *name;   /* of small letters, digits and '-', unique */
    const char *clause; /* VU-... */
    const char *title;  /* what holds, as a sentence without its point */
};

enum verdict { PASSED, FAILED, SKIPPED, ADVISED }; /* ADVISED: fails a recommendation */

enum format { FORMAT_TAP, FORMAT_JUNIT };

struct report {
    FILE *to;
    enum format format;
    const char *subject; /* what is judged, for people */
    unsigned planned, done;
    unsigned counts[ADVISED + 1]; /* by enum verdict */
};

void report_begin(struct report *r);
/* `transcript` prints the messages of a check that did not pass, with `ctx`; may be NULL. */
typedef void report_transcript_fn(void *ctx, FILE *to, const char *indent);
void report_check(struct report *r, const struct check_name *check, enum verdict verdict, const char *text,
                  double seconds, report_transcript_fn *transcript, void *ctx);
/* 0, or -EIO when something could not be written. */
int report_end(struct report *r);

#endif
