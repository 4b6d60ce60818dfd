// Gives the program that it is preloaded into a wall clock that somebody else can move: that
// of the machine and as many nanoseconds as stand in the file that HOLDFAST_CLOCK names, at
// every moment. The clocks that only count the time that passes stay as they are.
//
// The system is asked directly: to look for the functions that these here replace allocates
// memory, and allocators ask for the time.

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t *ahead; // shared with who moves the clock; NULL until the program begins

// A program with another clock than the test believes would make it mean nothing.
__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("HOLDFAST_CLOCK");
  int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  void *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
  if (page == MAP_FAILED) {
    perror("HOLDFAST_CLOCK");
    _exit(1);
  }
  close(fd);
  ahead = page;
}

int clock_gettime(clockid_t id, struct timespec *now) {
  const int64_t second = 1000000000;
  if (syscall(SYS_clock_gettime, id, now) != 0) return -1;
  if (ahead && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
    int64_t by = __atomic_load_n(ahead, __ATOMIC_RELAXED);
    now->tv_sec += by / second;
    now->tv_nsec += by % second;
    if (now->tv_nsec < 0) now->tv_sec--, now->tv_nsec += second;
    if (now->tv_nsec >= second) now->tv_sec++, now->tv_nsec -= second;
  }
  return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec t;
  (void)zone; // nobody has asked for it in decades
  if (clock_gettime(CLOCK_REALTIME, &t) != 0) return -1;
  now->tv_sec = t.tv_sec;
  now->tv_usec = t.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *now) {
  struct timespec t;
  if (clock_gettime(CLOCK_REALTIME, &t) != 0) return -1;
  if (now) *now = t.tv_sec;
  return t.tv_sec;
}
