/* What xbuild's demonstration compiles: three files, some real work, and answers to check. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "digest.h"
#include "sieve.h"

static const char EXPECTED[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

int main(void)
{
	struct utsname system;
	uint8_t digest[32];
	char text[65];
	long primes = count_primes(1000000);

	sha256_short((const uint8_t *)"abc", 3, digest);
	for (int i = 0; i < 32; i++)
		sprintf(text + 2 * i, "%02x", digest[i]);
	uname(&system);
	printf("machine %s, %zu-bit pointers, %s char\n", system.machine, 8 * sizeof(void *),
	       CHAR_MIN ? "signed" : "unsigned");
	printf("primes below a million: %ld\n", primes);
	printf("sha256(\"abc\"): %.16s...\n", text);
	return primes == 78498 && strcmp(text, EXPECTED) == 0 ? 0 : 1;
}
