/* conform.c: `outboard conform`: the command line, and the lists of checks and clauses. */
#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "../tool.h"
#include "clauses.h"
#include "options.h"

static void usage(FILE *to)
{
    fputs("Usage: outboard conform --server SOCKET [OPTION]...\n"
          "       outboard conform --spawn 'PROGRAM ARG...' [OPTION]...\n"
          "       outboard conform --client SOCKET [--spawn 'PROGRAM {socket} ARG...'] [OPTION]...\n"
          "       outboard conform --list | --clauses\n"
          "Judges a vfio-user server or client, clause by clause.\n\n"
          "  --server SOCKET    a server that listens there\n"
          "  --client SOCKET    clients, which connect to it again and again\n"
          "  --spawn COMMAND    a server program; {socket} in it is the path to listen at;\n"
          "                     with --client, a client's, started for each connection\n"
          "  --once             the server program ends with its client: start it for each connection\n"
          "  --check PATTERN    only checks whose name or clause matches; may be repeated\n"
          "  --format FORMAT    tap (as if not given) or junit\n"
          "  --output FILE      where to, instead of standard output\n"
          "  --timeout MS       how long to wait for anything; 5000\n"
          "  --strict           recommendations that are not followed are failures\n"
          "  --list             a line for each check: side, name, clause, title\n"
          "  --clauses          a line for each clause: who, source, checks\n"
          "  --help             print this text\n",
          to);
}

bool option_wants(const struct options *o, const struct check_name *check)
{
    for (unsigned i = 0; i < o->n_patterns; i++) {
        if (fnmatch(o->patterns[i], check->name, 0) == 0 || fnmatch(o->patterns[i], check->clause, 0) == 0)
            return true;
    }
    return o->n_patterns == 0;
}

enum verdict option_verdict(const struct options *o, const struct check_name *check, enum verdict verdict)
{
    const struct clause *clause = clause_find(check->clause);

    if (o->strict)
        return verdict == ADVISED ? FAILED : verdict;
    return verdict == FAILED && clause != NULL && clause->source == SOURCE_OUTBOARD ? ADVISED : verdict;
}

typedef const struct check_name *nth_check(unsigned n);

/* By the side that they judge. */
static const struct {
    const char *name;
    nth_check *nth;
    enum clause_who who;
} sides[] = { { "server", server_check, WHO_SERVER }, { "client", client_check, WHO_CLIENT } };

#define SIDES (sizeof(sides) / sizeof(sides[0]))

static int list(void)
{
    const struct check_name *check;

    for (size_t side = 0; side < SIDES; side++) {
        for (unsigned i = 0; (check = sides[side].nth(i)) != NULL; i++)
            printf("%s %-32s %-12s %s\n", sides[side].name, check->name, check->clause, check->title);
    }
    return fflush(stdout) == 0 ? 0 : STATUS_FAILED;
}

/* Prints the checks of a clause, and returns which sides have one: WHO_* or'ed together. */
static int print_checks_of(const char *clause)
{
    const struct check_name *check;
    int who = WHO_NONE;
    unsigned n = 0;

    for (size_t side = 0; side < SIDES; side++) {
        for (unsigned i = 0; (check = sides[side].nth(i)) != NULL; i++) {
            if (strcmp(check->clause, clause) != 0)
                continue;
            printf("%s%s %s", n++ == 0 ? "" : ", ", sides[side].name, check->name);
            who |= (int)sides[side].who;
        }
    }
    return who;
}

static int list_clauses(void)
{
    static const char *const who[] = { "-", "server", "client", "both" };
    static const char *const source[] = { "spec", "peers", "outboard" };
    unsigned testable[SIDES] = { 0 }, covered[SIDES] = { 0 };

    printf("| Clause | Who | Source | Checks |\n|---|---|---|---|\n");
    for (size_t i = 0; i < n_clauses; i++) {
        int with_check;

        printf("| %s | %s | %s | ", clauses[i].id, who[clauses[i].who], source[clauses[i].source]);
        with_check = print_checks_of(clauses[i].id);
        printf(" |\n");
        for (size_t side = 0; side < SIDES; side++) {
            testable[side] += (clauses[i].who & sides[side].who) != 0;
            covered[side] += (clauses[i].who & sides[side].who & with_check) != 0;
        }
    }
    printf("\n%zu clauses.", n_clauses);
    for (size_t side = 0; side < SIDES; side++)
        printf(" %u bind the %s, %u of them with a check.", testable[side], sides[side].name, covered[side]);
    putchar('\n');
    return fflush(stdout) == 0 ? 0 : STATUS_FAILED;
}

enum {
    OPT_SERVER = 256,
    OPT_CLIENT,
    OPT_SPAWN,
    OPT_ONCE,
    OPT_CHECK,
    OPT_FORMAT,
    OPT_OUTPUT,
    OPT_TIMEOUT,
    OPT_STRICT,
    OPT_LIST,
    OPT_CLAUSES,
    OPT_HELP
};

static const struct option long_options[] = {
    { "server", required_argument, NULL, OPT_SERVER },
    { "client", required_argument, NULL, OPT_CLIENT },
    { "spawn", required_argument, NULL, OPT_SPAWN },
    { "once", no_argument, NULL, OPT_ONCE },
    { "check", required_argument, NULL, OPT_CHECK },
    { "format", required_argument, NULL, OPT_FORMAT },
    { "output", required_argument, NULL, OPT_OUTPUT },
    { "timeout", required_argument, NULL, OPT_TIMEOUT },
    { "strict", no_argument, NULL, OPT_STRICT },
    { "list", no_argument, NULL, OPT_LIST },
    { "clauses", no_argument, NULL, OPT_CLAUSES },
    { "help", no_argument, NULL, OPT_HELP },
    { NULL, 0, NULL, 0 },
};

static int bad(const char *text, const char *value)
{
    fprintf(stderr, "outboard conform: %s '%s'; see 'outboard conform --help'\n", text, value);
    return STATUS_USAGE;
}

static int set_timeout(struct options *o, const char *value)
{
    char *end;
    long ms = strtol(value, &end, 10);

    if (*value == '\0' || !isdigit((unsigned char)*value) || *end != '\0' || ms < 1 || ms > 600000)
        return bad("--timeout takes 1 to 600000 ms, not", value);
    o->timeout_ms = (int)ms;
    return 0;
}

static int set_option(struct options *o, int option, const char *value)
{
    switch (option) {
    case OPT_SERVER:
        o->server = value;
        return 0;
    case OPT_CLIENT:
        o->client = value;
        return 0;
    case OPT_SPAWN:
        o->spawn = value;
        return 0;
    case OPT_ONCE:
        o->once = true;
        return 0;
    case OPT_CHECK:
        if (o->n_patterns == MAX_PATTERNS)
            return bad("too many patterns, from", value);
        o->patterns[o->n_patterns++] = value;
        return 0;
    case OPT_FORMAT:
        o->format = strcmp(value, "junit") == 0 ? FORMAT_JUNIT : FORMAT_TAP;
        return strcmp(value, "junit") == 0 || strcmp(value, "tap") == 0
                   ? 0
                   : bad("--format takes tap or junit, not", value);
    case OPT_OUTPUT:
        o->output = value;
        return 0;
    case OPT_TIMEOUT:
        return set_timeout(o, value);
    case OPT_STRICT:
        o->strict = true;
        return 0;
    default:
        return STATUS_USAGE;
    }
}

static const char *subject(const struct options *o)
{
    return o->spawn != NULL ? o->spawn : o->server != NULL ? o->server : o->client;
}

static bool matches(const char *pattern, nth_check *nth)
{
    const struct options one = { .patterns = { pattern }, .n_patterns = 1 };
    const struct check_name *check;

    for (unsigned i = 0; (check = nth(i)) != NULL; i++) {
        if (option_wants(&one, check))
            return true;
    }
    return false;
}

static int check_patterns(const struct options *o)
{
    for (unsigned i = 0; i < o->n_patterns; i++) {
        if (!matches(o->patterns[i], o->client != NULL ? client_check : server_check))
            return bad(o->client != NULL ? "no check of clients matches" : "no check of servers matches",
                       o->patterns[i]);
    }
    return 0;
}

static int run(const struct options *o)
{
    struct report report = { .to = stdout, .format = o->format, .subject = subject(o) };
    int status;

    if (o->output != NULL && (report.to = fopen(o->output, "we")) == NULL) {
        fprintf(stderr, "outboard conform: cannot write %s: %s\n", o->output, strerror(errno));
        return STATUS_FAILED;
    }
    status = o->client != NULL ? judge_client(o, &report) : judge_server(o, &report);
    if (status == 0 && report_end(&report) != 0) {
        fprintf(stderr, "outboard conform: the report could not be written\n");
        status = STATUS_FAILED;
    }
    if (o->output != NULL)
        fclose(report.to);
    if (status == 0 && report.done == report.counts[SKIPPED])
        status = 77;
    return status != 0 ? status : report.counts[FAILED] > 0;
}

int conform_main(int argc, char **argv)
{
    struct options o = { .timeout_ms = 5000 };
    int option;

    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        int status;

        if (option == OPT_HELP) {
            usage(stdout);
            return fflush(stdout) == 0 ? 0 : STATUS_FAILED;
        }
        if (option == OPT_LIST)
            return list();
        if (option == OPT_CLAUSES)
            return list_clauses();
        status = set_option(&o, option, optarg);
        if (status != 0)
            return status;
    }
    if (optind < argc)
        return bad("unexpected argument", argv[optind]);
    if (o.client != NULL ? o.server != NULL || o.once : (o.server == NULL) == (o.spawn == NULL)) {
        fprintf(stderr, "outboard conform: give one of --server, --spawn, and --client, the last with --spawn or "
                        "without; see 'outboard conform --help'\n");
        return STATUS_USAGE;
    }
    return check_patterns(&o) != 0 ? STATUS_USAGE : run(&o);
}
