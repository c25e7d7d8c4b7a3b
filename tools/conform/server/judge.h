/* judge.h: what the parts of the judge share: judge.c, held.c, messages.c, survey.c, run.c. */
#ifndef CONFORM_JUDGE_H
#define CONFORM_JUDGE_H

#include "check.h"

/* --- held.c ------------------------------------------------------------------------------------------------------ */

struct held {
    struct held *next;
    enum { HELD_FD, HELD_MEMORY, HELD_MAPPING, HELD_MESSAGE, HELD_JSON, HELD_CONNECTION } kind;
    int fd;
    void *memory;
    size_t size;
};

/* A new entry, to be filled. */
struct held *judge_held(struct judge *j, int kind);
void judge_release(struct judge *j);

/* --- survey.c ---------------------------------------------------------------------------------------------------- */

/* Asks the server for everything in facts: the body of a check of its own, which comes first. */
void survey(struct judge *j);

/* --- judge.c ----------------------------------------------------------------------------------------------------- */

/* Runs one check; j->text says why it did not pass. */
enum verdict judge_run(struct judge *j, const struct check *check);
/* Prints the transcript of the last check, each line after `indent`. */
void judge_transcript(struct judge *j, FILE *to, const char *indent);
int judge_init(struct judge *j, struct target *target, int timeout_ms);
void judge_free(struct judge *j);

#endif
