// The program around the worker: its environment, signals and exit status.
#include "worker.h"

#include <alloca.h>
#include <fcntl.h>
#include <sys/auxv.h>

namespace {

// The library makes its log files while it is loaded, which is before main: hailort.log in the folder
// that we were started in, and ~/.hailo. This runs before that. The host has set the variable; who
// starts us by hand has not, and only a new program can have it.
void without_log_files(int /*argc*/, char **argv, char **environment)
{
    static char setting[] = "HAILORT_LOGGER_PATH=NONE";
    size_t n = 0;
    for (; environment[n] != nullptr; n++) {
        if (std::strcmp(environment[n], setting) == 0) {
            return;
        }
    }
    auto **next = static_cast<char **>(alloca((n + 2) * sizeof(char *)));
    next[0] = setting; // of two, the first counts
    std::memcpy(next + 1, environment, (n + 1) * sizeof(char *));
    execve(reinterpret_cast<const char *>(getauxval(AT_EXECFN)), argv, next);
}

__attribute__((section(".preinit_array"), used)) void (*const before_the_library)(int, char **, char **) = without_log_files;

int serve()
{
    int type = 0;
    socklen_t size = sizeof(type);
    if (getsockopt(host_fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_SEQPACKET) {
        log("descriptor 3 is not a socket of hailo-clip, which starts this program");
        return exit_violation;
    }
    fcntl(host_fd, F_SETFL, 0); // blocking
    fcntl(host_fd, F_SETFD, FD_CLOEXEC);
    fcntl(memory_fd, F_SETFD, FD_CLOEXEC);
    // The host decides when we end; a terminal and systemd signal us while it still drains.
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
        (void)std::signal(signal, SIG_IGN);
    }
    (void)std::signal(SIGALRM, out_of_time);
    Worker worker;
    try {
        worker.run();
        return exit_done;
    } catch (const Violation &violation) {
        log(std::string("protocol violation: ") + violation.what());
        return exit_violation;
    } catch (const std::exception &e) {
        log(e.what());
        return exit_failed;
    }
}

int print_version()
{
    try {
        const std::string line =
            "hailo-clip-npu protocol " + std::to_string(protocol::version) + ", HailoRT " + runtime_version() + "\n";
        return write(STDOUT_FILENO, line.data(), line.size()) < 0 ? exit_failed : exit_done;
    } catch (const std::exception &e) {
        log(e.what());
        return exit_failed;
    }
}

} // namespace

int main(int argc, char **argv)
{
    if (argc == 2 && std::string_view(argv[1]) == "--version") {
        return print_version();
    }
    if (argc != 1) {
        log("usage: hailo-clip-npu [--version]; hailo-clip starts it");
        return exit_violation;
    }
    return serve();
}
