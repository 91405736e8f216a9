// Waiting, and ending in time.
#pragma once

#include "channel.h"

#include <array>
#include <atomic>
#include <csignal>
#include <poll.h>
#include <sys/eventfd.h>

// From the end of the socket, or from the decision to stop, until the process is gone.
constexpr unsigned exit_limit_s = 5;

inline int make_event()
{
    const int event = eventfd(0, EFD_CLOEXEC);
    if (event < 0) {
        throw system_error("eventfd");
    }
    return event;
}

// An event is raised until it is lowered.
inline void raise_event(int event)
{
    const uint64_t one = 1;
    [[maybe_unused]] const auto written = write(event, &one, sizeof(one)); // it can only be raised already
}

inline void lower_event(int event)
{
    uint64_t count = 0;
    [[maybe_unused]] const auto got = read(event, &count, sizeof(count));
}

// limit ends the process some seconds from now, whatever a call of the library is doing then.
inline void limit()
{
    static std::atomic_flag started = ATOMIC_FLAG_INIT;
    if (!started.test_and_set()) {
        alarm(exit_limit_s);
    }
}

inline void out_of_time(int /*signal*/)
{
    constexpr std::string_view line = "hailo-clip-npu: the device did not let go in time\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, line.data(), line.size());
    _exit(exit_stuck);
}

// wait_for waits until a descriptor is ready or an event is raised, at most ms (-1: for ever).
// True: the event.
inline bool wait_for(int fd, short events, int event, int ms)
{
    std::array<pollfd, 2> fds{{{fd, events, 0}, {event, POLLIN, 0}}};
    while (poll(fds.data(), fds.size(), ms) < 0) {
        if (errno != EINTR) {
            throw system_error("poll");
        }
    }
    return fds[1].revents != 0;
}
