/* report.c: TAP version 13 and JUnit XML. */
#include "report.h"

#include <errno.h>
#include <stdlib.h>

#include "clauses.h"

static void xml(FILE *to, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '&':
            fputs("&amp;", to);
            break;
        case '<':
            fputs("&lt;", to);
            break;
        case '>':
            fputs("&gt;", to);
            break;
        case '"':
            fputs("&quot;", to);
            break;
        default:
            /* Control characters have no place in XML 1.0, escaped or not. */
            fputc((unsigned char)*text < 0x20 && *text != '\n' && *text != '\t' ? '?' : *text, to);
        }
    }
}

static void tap_text(FILE *to, const char *label, const char *text)
{
    fprintf(to, "# %s", label);
    for (; *text != '\0'; text++) {
        if (*text == '\n')
            fputs("\n# ", to);
        else
            fputc(*text, to);
    }
    fputc('\n', to);
}

void report_begin(struct report *r)
{
    if (r->format == FORMAT_TAP) {
        fprintf(r->to, "TAP version 13\n1..%u\n", r->planned);
        return;
    }
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"outboard conform ", r->to);
    xml(r->to, r->subject);
    fprintf(r->to, "\" tests=\"%u\">\n", r->planned);
}

static void report_tap(struct report *r, const struct check_name *check, enum verdict verdict, const char *text,
                       report_transcript_fn *transcript, void *ctx)
{
    const struct clause *clause = clause_find(check->clause);

    fprintf(r->to, "%s %u - %s %s: %s", verdict == FAILED ? "not ok" : "ok", r->done, check->name, check->clause,
            check->title);
    if (verdict == SKIPPED)
        fprintf(r->to, " # SKIP skipped: %s", text);
    fputc('\n', r->to);
    if (verdict == FAILED || verdict == ADVISED) {
        tap_text(r->to, verdict == ADVISED ? "advice: " : "", text);
        if (clause != NULL) {
            fprintf(r->to, "# wants: %s: %s\n", clause->id, clause->text);
        }
        if (transcript != NULL)
            transcript(ctx, r->to, "#   ");
    }
}

static void report_junit(struct report *r, const struct check_name *check, enum verdict verdict, const char *text,
                         double seconds, report_transcript_fn *transcript, void *ctx)
{
    const struct clause *clause = clause_find(check->clause);
    char *lines = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&lines, &size);

    if (to != NULL) {
        if (transcript != NULL && (verdict == FAILED || verdict == ADVISED))
            transcript(ctx, to, "");
        fclose(to);
    }
    fprintf(r->to, "  <testcase classname=\"%s\" name=\"%s\" time=\"%.3f\">", check->clause, check->name, seconds);
    if (verdict == SKIPPED) {
        fputs("<skipped message=\"", r->to);
        xml(r->to, text);
        fputs("\"/>", r->to);
    } else if (verdict == FAILED || verdict == ADVISED) {
        fprintf(r->to, "<%s%s", verdict == FAILED ? "failure" : "system-out",
                verdict == FAILED ? " message=\"" : ">advice: ");
        xml(r->to, text);
        fputs(verdict == FAILED ? "\">" : "\n", r->to);
        fprintf(r->to, "%s wants: ", check->clause);
        xml(r->to, clause != NULL ? clause->text : "");
        fputc('\n', r->to);
        xml(r->to, lines != NULL ? lines : "");
        fprintf(r->to, "</%s>", verdict == FAILED ? "failure" : "system-out");
    }
    fputs("</testcase>\n", r->to);
    free(lines);
}

void report_check(struct report *r, const struct check_name *check, enum verdict verdict, const char *text,
                  double seconds, report_transcript_fn *transcript, void *ctx)
{
    r->done++;
    r->counts[verdict]++;
    if (r->format == FORMAT_TAP)
        report_tap(r, check, verdict, text, transcript, ctx);
    else
        report_junit(r, check, verdict, text, seconds, transcript, ctx);
    fflush(r->to);
}

int report_end(struct report *r)
{
    if (r->format == FORMAT_JUNIT)
        fputs("</testsuite>\n", r->to);
    else
        fprintf(r->to, "# %u passed, %u failed, %u skipped, %u with advice\n", r->counts[PASSED], r->counts[FAILED],
                r->counts[SKIPPED], r->counts[ADVISED]);
    return fflush(r->to) == 0 && !ferror(r->to) ? 0 : -EIO;
}
