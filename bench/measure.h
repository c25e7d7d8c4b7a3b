/* measure.h: what the programs here measure with. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

/* Ends the program, with its name and a line that says why. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* CLOCK_MONOTONIC, in us. */
double now_us(void);
/* Sorts them; 0 if there are none. */
double median(double *values, int n);

#endif
