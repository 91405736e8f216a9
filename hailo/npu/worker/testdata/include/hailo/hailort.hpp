// The part of HailoRT 5.x that hailo-clip-npu uses, declared with the vendor's names, parameters
// and results (5.2.0), so that the worker is compiled and run where HailoRT cannot be
// installed. Behind it is the simulated chip of fake_chip.hpp. Where the vendor's library is
// forgiving or undefined, this one aborts: a misuse is a failed test. Overloads that the worker
// does not use are deleted, so that a call that is ambiguous there is ambiguous here.
#pragma once

#include <chrono>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using float32_t = float;

enum hailo_status {
    HAILO_SUCCESS = 0,
    HAILO_UNINITIALIZED = 1,
    HAILO_INVALID_ARGUMENT = 2,
    HAILO_OUT_OF_HOST_MEMORY = 3,
    HAILO_TIMEOUT = 4,
    HAILO_INSUFFICIENT_BUFFER = 5,
    HAILO_INVALID_OPERATION = 6,
    HAILO_NOT_IMPLEMENTED = 7,
    HAILO_INTERNAL_FAILURE = 8,
    HAILO_OPEN_FILE_FAILURE = 13,
    HAILO_INVALID_HEF = 26,
    HAILO_COMMUNICATION_CLOSED = 62,
    HAILO_STREAM_ABORT = 63,
    HAILO_OUT_OF_PHYSICAL_DEVICES = 74,
    HAILO_NOT_SUPPORTED = 79,
    HAILO_HEF_FILE_CORRUPTED = 91,
    HAILO_STATUS_MAX_ENUM = INT_MAX
};

enum hailo_scheduling_algorithm_t {
    HAILO_SCHEDULING_ALGORITHM_NONE = 0,
    HAILO_SCHEDULING_ALGORITHM_ROUND_ROBIN,
    HAILO_SCHEDULING_ALGORITHM_MAX_ENUM = INT_MAX
};

enum hailo_device_architecture_t {
    HAILO_ARCH_HAILO15H = 3,
    HAILO_ARCH_HAILO10H = 6,
    HAILO_ARCH_MAX_ENUM = INT_MAX
};

enum hailo_format_type_t {
    HAILO_FORMAT_TYPE_AUTO = 0,
    HAILO_FORMAT_TYPE_UINT8 = 1,
    HAILO_FORMAT_TYPE_UINT16 = 2,
    HAILO_FORMAT_TYPE_FLOAT32 = 3,
    HAILO_FORMAT_TYPE_MAX_ENUM = INT_MAX
};

enum hailo_format_order_t {
    HAILO_FORMAT_ORDER_AUTO = 0,
    HAILO_FORMAT_ORDER_NHWC = 1,
    HAILO_FORMAT_ORDER_FCR = 3,
    HAILO_FORMAT_ORDER_F8CR = 4,
    HAILO_FORMAT_ORDER_NC = 6,
    HAILO_FORMAT_ORDER_NCHW = 11,
    HAILO_FORMAT_ORDER_MAX_ENUM = INT_MAX
};

enum hailo_format_flags_t {
    HAILO_FORMAT_FLAGS_NONE = 0,
    HAILO_FORMAT_FLAGS_QUANTIZED = 1,
    HAILO_FORMAT_FLAGS_TRANSPOSED = 2,
    HAILO_FORMAT_FLAGS_MAX_ENUM = INT_MAX
};

struct hailo_format_t {
    hailo_format_type_t type;
    hailo_format_order_t order;
    hailo_format_flags_t flags;
};

enum hailo_notification_id_t {
    HAILO_NOTIFICATION_ID_HEALTH_MONITOR_TEMPERATURE_ALARM = 1,
    HAILO_NOTIFICATION_ID_HEALTH_MONITOR_OVERCURRENT_ALARM = 3,
    HAILO_NOTIFICATION_ID_NN_CORE_CRC_ERROR_EVENT = 13,
    HAILO_NOTIFICATION_ID_MAX_ENUM = INT_MAX
};

enum hailo_temperature_protection_temperature_zone_t {
    HAILO_TEMPERATURE_PROTECTION_TEMPERATURE_ZONE__GREEN = 0,
    HAILO_TEMPERATURE_PROTECTION_TEMPERATURE_ZONE__ORANGE = 1,
    HAILO_TEMPERATURE_PROTECTION_TEMPERATURE_ZONE__RED = 2
};

enum hailo_overcurrent_protection_overcurrent_zone_t {
    HAILO_OVERCURRENT_PROTECTION_OVERCURRENT_ZONE__GREEN = 0,
    HAILO_OVERCURRENT_PROTECTION_OVERCURRENT_ZONE__RED = 1
};

struct hailo_version_t {
    uint32_t major, minor, revision;
};

struct hailo_device_id_t {
    char id[32];
};

struct hailo_vdevice_params_t {
    uint32_t device_count;
    hailo_device_id_t *device_ids;
    hailo_scheduling_algorithm_t scheduling_algorithm;
    const char *group_id;
    bool multi_process_service;
};

struct hailo_firmware_version_t {
    uint32_t major, minor, revision;
};

struct hailo_device_identity_t {
    hailo_firmware_version_t fw_version;
    hailo_device_architecture_t device_architecture;
};

struct hailo_chip_temperature_info_t {
    float32_t ts0_temperature, ts1_temperature;
    uint16_t sample_count;
};

struct hailo_3d_image_shape_t {
    uint32_t height, width, features;
};

struct hailo_quant_info_t {
    float32_t qp_zp, qp_scale, limvals_min, limvals_max;
};

#pragma pack(push, 1) // in the vendor's header too, so the members are not aligned
struct hailo_performance_stats_t {
    float32_t cpu_utilization;
    int64_t ram_size_total, ram_size_used;
    float32_t nnc_utilization;
};

struct hailo_notification_t {
    hailo_notification_id_t id;
    uint32_t sequence;
    union {
        struct {
            hailo_temperature_protection_temperature_zone_t temperature_zone;
        } health_monitor_temperature_alarm_notification;
        struct {
            hailo_overcurrent_protection_overcurrent_zone_t overcurrent_zone;
        } health_monitor_overcurrent_alert_notification;
        uint16_t new_state; // of id 14
    } body;
};
#pragma pack(pop)

hailo_status hailo_get_library_version(hailo_version_t *version);
const char *hailo_get_status_message(hailo_status status);
hailo_status hailo_init_vdevice_params(hailo_vdevice_params_t *params);

#include "fake_chip.hpp"

namespace hailort {

struct Unexpected {
    explicit Unexpected(hailo_status status) : m_status(status) {}
    hailo_status m_status;
};

inline Unexpected make_unexpected(hailo_status status) { return Unexpected(status); }

template <typename T> class Expected final {
public:
    Expected(T &&value) : m_value(std::move(value)), m_status(HAILO_SUCCESS) {}
    Expected(const Unexpected &unexpected) : m_status(unexpected.m_status) {}
    explicit Expected(const Expected &other) = default;
    Expected(Expected &&other) = default;
    Expected &operator=(Expected &&other) = delete;

    explicit operator bool() const { return m_status == HAILO_SUCCESS; }
    hailo_status status() const { return m_status; }
    T &value() & { return checked(); }
    T *operator->() { return &checked(); }
    T &operator*() & { return checked(); }
    T release()
    {
        T value = std::move(checked());
        m_value.reset();
        m_status = HAILO_UNINITIALIZED;
        return value;
    }

private:
    T &checked()
    {
        if (m_status != HAILO_SUCCESS) {
            fake::misuse("the value of an Expected that has none");
        }
        return *m_value;
    }
    std::optional<T> m_value;
    hailo_status m_status;
};

class MemoryView final {
public:
    MemoryView() noexcept : m_data(nullptr), m_size(0) {}
    MemoryView(void *data, size_t size) noexcept : m_data(data), m_size(size) {}
    MemoryView(const std::string &data) = delete;
    uint8_t *data() noexcept { return static_cast<uint8_t *>(m_data); }
    size_t size() const noexcept { return m_size; }

private:
    void *m_data;
    size_t m_size;
};

class Device;
using NotificationCallback = std::function<void(Device &device, const hailo_notification_t &notification, void *opaque)>;

class Device {
public:
    static Expected<std::vector<std::string>> scan();
    static Expected<std::unique_ptr<Device>> create(const std::string &device_id);
    static Expected<std::unique_ptr<Device>> create() = delete;

    explicit Device(std::shared_ptr<fake::Session> frames) : m_frames(std::move(frames)) { fake::device_opened(); }
    virtual ~Device()
    {
        fake::outside_callback("~Device");
        fake::device_closed();
    }
    Device(const Device &) = delete;
    Device &operator=(const Device &) = delete;

    virtual Expected<hailo_device_identity_t> identify();
    virtual Expected<hailo_chip_temperature_info_t> get_chip_temperature();
    virtual Expected<hailo_performance_stats_t> query_performance_stats();
    virtual hailo_status set_notification_callback(const NotificationCallback &func, hailo_notification_id_t notification_id,
        void *opaque);

private:
    std::shared_ptr<fake::Session> m_frames; // whose connection it shares; nullptr: it has its own
};

struct AsyncInferCompletionInfo {
    AsyncInferCompletionInfo(hailo_status _status) : status(_status) {}
    hailo_status status;
};

class AsyncInferJob {
public:
    AsyncInferJob() = default;
    AsyncInferJob(AsyncInferJob &&other) noexcept : m_waits(std::exchange(other.m_waits, false)) {}
    AsyncInferJob &operator=(AsyncInferJob &&other) = delete;
    virtual ~AsyncInferJob()
    {
        if (m_waits) {
            fake::misuse("a job not detached: its destructor waits up to 10 s");
        }
    }
    void detach() { m_waits = false; }

private:
    friend class ConfiguredInferModel;
    bool m_waits = false;
};

class ConfiguredInferModel {
public:
    ConfiguredInferModel() = default;

    class Bindings {
    public:
        class InferStream {
        public:
            hailo_status set_buffer(MemoryView view);

        private:
            friend class ConfiguredInferModel;
            std::shared_ptr<fake::Buffer> m_buffer;
        };
        Expected<InferStream> input() { return InferStream(m_input); }
        Expected<InferStream> output() { return InferStream(m_output); }

    private:
        friend class ConfiguredInferModel;
        InferStream m_input, m_output;
    };

    Expected<Bindings> create_bindings();
    hailo_status wait_for_async_ready(std::chrono::milliseconds timeout, uint32_t frames_count = 1);
    Expected<AsyncInferJob> run_async(const Bindings &bindings, std::function<void(const AsyncInferCompletionInfo &)> callback);
    Expected<AsyncInferJob> run_async(const std::vector<Bindings> &bindings,
        std::function<void(const AsyncInferCompletionInfo &)> callback) = delete;
    hailo_status set_scheduler_timeout(const std::chrono::milliseconds &timeout);
    hailo_status set_scheduler_threshold(uint32_t threshold);
    hailo_status set_scheduler_priority(uint8_t priority);
    Expected<size_t> get_async_queue_size() const;
    hailo_status shutdown();

private:
    friend class InferModel;
    std::shared_ptr<fake::Configured> m_pimpl;
};

class InferModel {
public:
    class InferStream {
    public:
        const std::string name() const { return m_stream->name; }
        hailo_3d_image_shape_t shape() const { return {m_stream->height, m_stream->width, m_stream->features}; }
        hailo_format_t format() const;
        size_t get_frame_size() const { return m_stream->frame_size(); }
        void set_format_type(hailo_format_type_t type) { m_stream->bytes = type == HAILO_FORMAT_TYPE_FLOAT32 ? 4 : type; }
        std::vector<hailo_quant_info_t> get_quant_infos() const;

    private:
        friend class InferModel;
        fake::Stream *m_stream = nullptr;
    };

    InferModel(std::shared_ptr<fake::Session> session, fake::Hef hef) : m_session(session), m_hef(std::move(hef)) { session->hold(); }
    virtual ~InferModel();
    virtual Expected<InferStream> input();
    virtual Expected<InferStream> output();
    virtual void set_batch_size(uint16_t batch_size) { m_batch = batch_size; }
    virtual Expected<ConfiguredInferModel> configure();

private:
    std::weak_ptr<fake::Session> m_session;
    std::weak_ptr<fake::Configured> m_configured;
    fake::Hef m_hef;
    uint16_t m_batch = 0;
};

class Hef final {
public:
    static Expected<Hef> create(const std::string &hef_path);
    std::vector<std::string> get_network_groups_names() const { return m_groups; }

private:
    std::vector<std::string> m_groups;
};

class VDevice {
public:
    static Expected<std::unique_ptr<VDevice>> create(const hailo_vdevice_params_t &params);
    static Expected<std::unique_ptr<VDevice>> create(const std::vector<std::string> &device_ids) = delete;
    explicit VDevice(std::shared_ptr<fake::Session> session) : m_session(session), m_device(session) {}
    virtual ~VDevice()
    {
        fake::outside_callback("~VDevice");
        m_session->release();
    }
    VDevice(const VDevice &) = delete;
    VDevice &operator=(const VDevice &) = delete;
    virtual Expected<std::shared_ptr<InferModel>> create_infer_model(const std::string &hef_path, const std::string &name = "");
    Expected<std::shared_ptr<InferModel>> create_infer_model(const MemoryView hef_buffer, const std::string &name = "") = delete;
    virtual Expected<std::vector<std::reference_wrapper<Device>>> get_physical_devices() const
    {
        return std::vector<std::reference_wrapper<Device>>{m_device};
    }

private:
    std::shared_ptr<fake::Session> m_session;
    mutable Device m_device;
};

} // namespace hailort

#include "fake_calls.hpp"
