// What the worker says: packets to the host, lines to stderr. What it hears: packets.
#pragma once

#include "protocol.h"

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <unistd.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the messages are little-endian");

// How the process ends.
enum Exit : int { exit_done = 0, exit_failed = 1, exit_violation = 2, exit_stuck = 3 };

// The descriptors that the host gives us.
constexpr int host_fd = 3;
constexpr int memory_fd = 4;

// The host did what the protocol forbids.
struct Violation : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A system call failed.
inline std::runtime_error system_error(const std::string &call) { return std::runtime_error(call + ": " + std::strerror(errno)); }

// log writes one line for a person; what becomes of it does not matter.
inline void log(const std::string &line)
{
    const std::string whole = "hailo-clip-npu: " + line + "\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, whole.data(), whole.size());
}

// send is safe on any thread: a packet is one system call. It blocks while the socket is full.
// When the host is gone it does nothing, for the main loop sees that too. Any other failure would
// lose an answer, so it ends the process, which the host notices.
template <typename Message> void send(Message &message)
{
    message.header = {Message::kind, sizeof(Message)};
    while (::send(host_fd, &message, sizeof(Message), MSG_NOSIGNAL) < 0) {
        if (errno == EPIPE || errno == ECONNRESET) {
            return;
        }
        if (errno != EINTR) {
            log(system_error("send").what());
            _exit(exit_failed);
        }
    }
}

// A Packet is what came from the host; as() refuses it when it is not one whole message of that type.
struct Packet {
    char bytes[protocol::max_packet];
    size_t size;

    [[nodiscard]] protocol::Header header() const
    {
        protocol::Header header{};
        if (size < sizeof(header)) {
            throw Violation("a packet of " + std::to_string(size) + " bytes");
        }
        std::memcpy(&header, bytes, sizeof(header));
        return header;
    }

    template <typename Message> [[nodiscard]] Message as() const
    {
        Message message;
        const auto [type, says] = header();
        if (type != Message::kind || says != sizeof(message) || size != sizeof(message)) {
            throw Violation("a packet of type " + std::to_string(type) + " has " + std::to_string(size) + " bytes and says " +
                std::to_string(says) + ", want type " + std::to_string(Message::kind) + " and " + std::to_string(sizeof(message)));
        }
        std::memcpy(&message, bytes, sizeof(message));
        return message;
    }
};

// Texts are filled up with NUL, and their last byte is always one.
template <size_t size> std::string text_of(const char (&field)[size])
{
    if (field[size - 1] != 0) {
        throw Violation("a text field without its NUL");
    }
    return field;
}

template <size_t size> void put(char (&field)[size], std::string_view text)
{
    const size_t n = text.copy(field, size - 1);
    std::memset(field + n, 0, size - n);
}
