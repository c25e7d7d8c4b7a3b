/* options.h: the command line of `outboard conform`. */
#ifndef CONFORM_OPTIONS_H
#define CONFORM_OPTIONS_H

#include <stdbool.h>

#include "report.h"

#define MAX_PATTERNS 256

struct options {
    const char *server, *client;        /* sockets: of a server; that clients connect to */
    const char *spawn;                  /* a command: of a server, or with `client` of a client */
    bool once;                          /* the server program serves one client */
    const char *patterns[MAX_PATTERNS]; /* of the names of checks and clauses wanted; none: all */
    unsigned n_patterns;
    enum format format;
    const char *output;
    int timeout_ms;
    bool strict; /* advice is failure */
};

/* Whether a check is wanted. */
bool option_wants(const struct options *o, const struct check_name *check);

/* What is reported of a check: a recommendation that is not followed is no failure, unless that is wanted. */
enum verdict option_verdict(const struct options *o, const struct check_name *check, enum verdict verdict);

/* The judgement of a server, in server/. An exit status. */
int judge_server(const struct options *o, struct report *report);
/* The nth check of servers; NULL: there are no more. */
const struct check_name *server_check(unsigned n);
/* The same for clients, in client/. */
int judge_client(const struct options *o, struct report *report);
const struct check_name *client_check(unsigned n);

#endif
