/* report.h: what a run prints: TAP, or JUnit's XML. */
#ifndef CONFORM_REPORT_H
#define CONFORM_REPORT_H

#include <stdio.h>

#include "check.h"

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
void report_check(struct report *r, const struct check *check, enum verdict verdict, const char *text, double seconds,
                  report_transcript_fn *transcript, void *ctx);
/* 0, or -EIO when something could not be written. */
int report_end(struct report *r);

#endif
