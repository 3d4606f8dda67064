/* Included before every source (see Makefile). The libraries are loaded beside glibcs older
 * than the building machine's, and a symbol of a newer version would keep llama-server from
 * starting. Functions that moved to libc.so.6, with 2.32 and 2.34, got a second, equal version
 * there: the first is asked for. fstat and the like, which became functions with 2.33, are not
 * used. check-glibc tells what the libraries need. */
#ifndef GLIBC_H
#define GLIBC_H

#include <features.h>

#ifdef __x86_64__
#define FIRST_GLIBC "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define FIRST_GLIBC "GLIBC_2.17"
#endif

/* The sanitizers have functions of their own in these places. */
#if defined(__GLIBC__) && defined(FIRST_GLIBC) && !defined(__SANITIZE_ADDRESS__)
#define OF_FIRST_GLIBC(name) __asm__(".symver " #name "," #name "@" FIRST_GLIBC)
OF_FIRST_GLIBC(dladdr);
OF_FIRST_GLIBC(dlopen);
OF_FIRST_GLIBC(dlsym);
OF_FIRST_GLIBC(pthread_create);
OF_FIRST_GLIBC(pthread_join);
OF_FIRST_GLIBC(pthread_sigmask);
#endif

#endif
