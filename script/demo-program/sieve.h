#ifndef SIEVE_H
#define SIEVE_H

/* Count the primes below limit; -1 when memory is short. */
long count_primes(long limit);

#endif
