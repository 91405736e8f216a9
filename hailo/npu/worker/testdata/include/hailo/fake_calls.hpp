// The calls of the fake hailort.hpp that need the simulated chip. They stand for round trips to
// the chip, so none may be made from a callback.
#pragma once

inline hailo_status hailo_get_library_version(hailo_version_t *version)
{
    *version = {5, 2, 0};
    return HAILO_SUCCESS;
}

inline const char *hailo_get_status_message(hailo_status status)
{
    return status == HAILO_COMMUNICATION_CLOSED ? "HAILO_COMMUNICATION_CLOSED" : nullptr;
}

inline hailo_status hailo_init_vdevice_params(hailo_vdevice_params_t *params)
{
    *params = {1, nullptr, HAILO_SCHEDULING_ALGORITHM_ROUND_ROBIN, "UNIQUE", false};
    return HAILO_SUCCESS;
}

namespace hailort {

// "scan" is the number of devices.
inline Expected<std::vector<std::string>> Device::scan()
{
    std::vector<std::string> ids;
    for (int i = 1; i <= static_cast<int>(fake::option("scan", 1)); i++) {
        ids.push_back("000" + std::to_string(i) + ":01:00.0");
    }
    return ids;
}

// "device" is the status of opening a device for anything but inference.
inline Expected<std::unique_ptr<Device>> Device::create(const std::string &)
{
    if (const auto status = fake::status_option("device")) {
        return make_unexpected(status);
    }
    return std::make_unique<Device>(nullptr);
}

// "arch" is the chip's architecture, "firmware" the second number of its software's version.
inline Expected<hailo_device_identity_t> Device::identify()
{
    fake::outside_callback("identify");
    if (const auto status = m_frames ? m_frames->ask() : HAILO_SUCCESS) {
        return make_unexpected(status);
    }
    return hailo_device_identity_t{{5, static_cast<uint32_t>(fake::option("firmware", 2)), 0},
        static_cast<hailo_device_architecture_t>(static_cast<int>(fake::option("arch", HAILO_ARCH_HAILO10H)))};
}

// "die_at" is the request for a temperature at which the chip's server dies; "rpc" is the status of the two calls for statistics, "rpc_ms" how long they take.
inline Expected<hailo_chip_temperature_info_t> Device::get_chip_temperature()
{
    fake::outside_callback("get_chip_temperature");
    static std::atomic<int> asked{0};
    if (++asked == static_cast<int>(fake::option("die_at", 0))) {
        if (const auto session = fake::latest.lock()) {
            session->die();
        }
        return make_unexpected(HAILO_COMMUNICATION_CLOSED);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(static_cast<int>(fake::option("rpc_ms", 0))));
    if (const auto status = fake::status_option("rpc")) {
        return make_unexpected(status);
    }
    return hailo_chip_temperature_info_t{41.5F, 42.5F, 1};
}

// The chip answers the requests of a connection one by one, and measures for this one while it sleeps.
inline Expected<hailo_performance_stats_t> Device::query_performance_stats()
{
    fake::outside_callback("query_performance_stats");
    if (m_frames) {
        fake::misuse("query_performance_stats over the connection of the frames: they wait for it");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(static_cast<int>(fake::option("rpc_ms", 0))));
    if (const auto status = fake::status_option("rpc")) {
        return make_unexpected(status);
    }
    return hailo_performance_stats_t{12.5F, int64_t{8} << 30, int64_t{1} << 30, -1};
}

// "zone", "overcurrent", "crc" and "throttling" are notifications: the chip sends them right after
// the first registration: a change is told once.
inline hailo_status Device::set_notification_callback(const NotificationCallback &func, hailo_notification_id_t notification_id,
    void *opaque)
{
    fake::outside_callback("set_notification_callback");
    hailo_notification_t n{};
    n.id = notification_id;
    int value = 0;
    switch (static_cast<int>(notification_id)) {
    case 1:
        value = static_cast<int>(fake::option("zone", 0));
        std::memcpy(&n.body, &value, sizeof(value));
        break;
    case 3:
        value = static_cast<int>(fake::option("overcurrent", 0));
        std::memcpy(&n.body, &value, sizeof(value));
        break;
    case 13:
        value = static_cast<int>(fake::option("crc", 0));
        break;
    case 14:
        value = static_cast<int>(fake::option("throttling", 0));
        n.body.new_state = static_cast<uint16_t>(value);
        break;
    default:
        return HAILO_NOT_IMPLEMENTED;
    }
    static std::array<std::atomic<bool>, 16> told{};
    if (value != 0 && !told.at(notification_id).exchange(true)) {
        std::thread([&] {
            fake::in_callback = true;
            func(*this, n, opaque);
        }).join();
    }
    return HAILO_SUCCESS;
}

inline hailo_status ConfiguredInferModel::Bindings::InferStream::set_buffer(MemoryView view)
{
    if (reinterpret_cast<uintptr_t>(view.data()) % 4096 != 0) {
        fake::misuse("a buffer that does not begin a page: the library copies it on every transfer");
    }
    *m_buffer = {view.data(), view.size()};
    return HAILO_SUCCESS;
}

inline Expected<ConfiguredInferModel::Bindings> ConfiguredInferModel::create_bindings()
{
    Bindings bindings;
    bindings.m_input.m_buffer = std::make_shared<fake::Buffer>();
    bindings.m_output.m_buffer = std::make_shared<fake::Buffer>();
    return bindings;
}

inline hailo_status ConfiguredInferModel::wait_for_async_ready(std::chrono::milliseconds timeout, uint32_t frames_count)
{
    const auto session = m_pimpl->use("wait_for_async_ready");
    return session->wait_ready(*m_pimpl->network, timeout, frames_count) ? HAILO_SUCCESS : HAILO_TIMEOUT;
}

inline Expected<AsyncInferJob> ConfiguredInferModel::run_async(const Bindings &bindings,
    std::function<void(const AsyncInferCompletionInfo &)> callback)
{
    if (std::getenv("HAILO_REQUEST_TIMEOUT_SECONDS") == nullptr) {
        fake::misuse("run_async with requests that wait 10 s for a silent chip");
    }
    const auto session = m_pimpl->use("run_async");
    const auto &input = *bindings.m_input.m_buffer;
    const auto &output = *bindings.m_output.m_buffer;
    const auto &hef = m_pimpl->network->hef;
    if (input.size != hef.input.frame_size() || output.size != hef.output.frame_size()) {
        fake::misuse("a buffer of the wrong size: the library shuts the model down");
    }
    fake::Job job{input, output, [callback = std::move(callback)](hailo_status status) { callback({status}); }};
    const auto status = session->submit(m_pimpl->network, std::move(job));
    if (status != HAILO_SUCCESS) {
        return make_unexpected(status);
    }
    AsyncInferJob running;
    running.m_waits = true;
    return running;
}

inline hailo_status ConfiguredInferModel::set_scheduler_timeout(const std::chrono::milliseconds &timeout)
{
    (void)m_pimpl->use("set_scheduler_timeout");
    m_pimpl->network->timeout = timeout;
    return HAILO_SUCCESS;
}

// "threshold" is its status.
inline hailo_status ConfiguredInferModel::set_scheduler_threshold(uint32_t threshold)
{
    (void)m_pimpl->use("set_scheduler_threshold");
    if (const auto status = fake::status_option("threshold")) {
        return status;
    }
    m_pimpl->network->threshold = threshold;
    return threshold <= m_pimpl->network->batch ? HAILO_SUCCESS : HAILO_INVALID_ARGUMENT;
}

inline hailo_status ConfiguredInferModel::set_scheduler_priority(uint8_t priority)
{
    (void)m_pimpl->use("set_scheduler_priority");
    m_pimpl->network->priority = priority;
    return priority <= 31 ? HAILO_SUCCESS : HAILO_INVALID_ARGUMENT;
}

inline Expected<size_t> ConfiguredInferModel::get_async_queue_size() const { return m_pimpl->network->depth(); }

inline hailo_status ConfiguredInferModel::shutdown()
{
    return m_pimpl->use("shutdown")->shut(m_pimpl->network);
}

// A HEF with two inputs or outputs says so with features 0.
inline Expected<InferModel::InferStream> InferModel::input()
{
    InferStream stream;
    stream.m_stream = &m_hef.input;
    if (m_hef.input.features == 0) {
        return make_unexpected(HAILO_INVALID_OPERATION);
    }
    return stream;
}

inline Expected<InferModel::InferStream> InferModel::output()
{
    InferStream stream;
    stream.m_stream = &m_hef.output;
    if (m_hef.output.features == 0) {
        return make_unexpected(HAILO_INVALID_OPERATION);
    }
    return stream;
}

// Scale 1/128 and zero point 0; where each feature has its own, one entry of zeros.
inline std::vector<hailo_quant_info_t> InferModel::InferStream::get_quant_infos() const
{
    return {{0, m_stream->quants == 1 ? 1.0F / 128 : 0, 0, 0}};
}

// "order" and "flags" are those of all streams.
inline hailo_format_t InferModel::InferStream::format() const
{
    return {HAILO_FORMAT_TYPE_AUTO, static_cast<hailo_format_order_t>(static_cast<int>(fake::option("order", HAILO_FORMAT_ORDER_NHWC))),
        static_cast<hailo_format_flags_t>(static_cast<int>(fake::option("flags", HAILO_FORMAT_FLAGS_QUANTIZED)))};
}

inline InferModel::~InferModel()
{
    fake::outside_callback("~InferModel");
    if (!m_configured.expired()) {
        fake::misuse("a model destroyed before its configured model");
    }
    if (const auto session = m_session.lock()) {
        session->drop();
    }
}

// "configure" is its status, "configure_ms" how long it takes.
inline Expected<ConfiguredInferModel> InferModel::configure()
{
    fake::outside_callback("configure");
    const auto session = m_session.lock();
    if (!session) {
        fake::misuse("configure after the vdevice was released");
    }
    if (std::getenv("HAILO_REQUEST_TIMEOUT_SECONDS") != nullptr) {
        fake::misuse("configure with a short limit for requests: a large model takes longer");
    }
    if (m_batch == 0) {
        fake::misuse("no batch size: the library takes it for 1");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(static_cast<int>(fake::option("configure_ms", 0))));
    if (const auto status = fake::status_option("configure")) {
        return make_unexpected(status);
    }
    const auto network = std::make_shared<fake::Network>();
    network->hef = m_hef;
    network->batch = m_batch;
    ConfiguredInferModel configured;
    configured.m_pimpl = std::make_shared<fake::Configured>(session, network);
    m_configured = configured.m_pimpl;
    return configured;
}

// "create" is its status: 73 busy, 76 the driver's version.
inline Expected<std::unique_ptr<VDevice>> VDevice::create(const hailo_vdevice_params_t &params)
{
    if (params.device_count != 1 || params.device_ids == nullptr || params.multi_process_service ||
        params.scheduling_algorithm != HAILO_SCHEDULING_ALGORITHM_ROUND_ROBIN || params.group_id == nullptr) {
        fake::misuse("vdevice parameters that Hailo-10H refuses or that hide why it fails");
    }
    if (const auto status = fake::status_option("create")) {
        return make_unexpected(status);
    }
    const auto session = std::make_shared<fake::Session>();
    fake::latest = session;
    return std::make_unique<VDevice>(session);
}

// "groups" is how many network groups a HEF has.
inline Expected<Hef> Hef::create(const std::string &)
{
    Hef hef;
    for (int i = 0; i < static_cast<int>(fake::option("groups", 1)); i++) {
        hef.m_groups.push_back("group" + std::to_string(i));
    }
    return hef;
}

// "hef" is its status. The file is 01 48 45 46 and a line: height, width, features and bytes per value of the input, the
// same of the output, a, b, and how many scales the output has.
inline Expected<std::shared_ptr<InferModel>> VDevice::create_infer_model(const std::string &hef_path, const std::string &)
{
    fake::outside_callback("create_infer_model");
    if (const auto status = fake::status_option("hef")) {
        return make_unexpected(status);
    }
    const std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen(hef_path.c_str(), "rb"), std::fclose);
    if (!file) {
        return make_unexpected(HAILO_OPEN_FILE_FAILURE);
    }
    fake::Hef hef;
    auto &in = hef.input;
    auto &out = hef.output;
    char magic[4] = {};
    const bool is_hef = std::fread(magic, 1, 4, file.get()) == 4 && std::memcmp(magic, "\x01HEF", 4) == 0;
    if (!is_hef || std::fscanf(file.get(), "%u %u %u %u %u %u %u %u %lf %lf %u", &in.height, &in.width, &in.features, &in.bytes,
                       &out.height, &out.width, &out.features, &out.bytes, &hef.a, &hef.b, &out.quants) != 11) {
        return make_unexpected(HAILO_HEF_FILE_CORRUPTED);
    }
    in.name = "input_layer1";
    out.name = "normalization25";
    return std::make_shared<InferModel>(m_session, hef);
}

} // namespace hailort
