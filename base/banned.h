/*
 * Included before every source file by the Makefile: libc calls that cannot be used safely fail the compile here, so that
 * no reviewer has to look for them.  Allocation goes through base/alloc.h (tests make the n-th one fail).
 */
#ifndef SKF_BASE_BANNED_H
#define SKF_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* Some of these are macros of the C library under clang. */
#undef strcpy
#undef strcat
#undef strncpy
#undef strncat
#undef sprintf
#undef vsprintf
#undef strtok

#pragma GCC poison strcpy strcat strncpy strncat sprintf vsprintf gets strtok atoi atol atoll atof tmpnam mktemp
#pragma GCC poison localtime gmtime ctime asctime

#endif
