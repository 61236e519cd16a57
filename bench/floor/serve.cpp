// The bare server floor: the models `small` and `large` over HTTP with ONNX Runtime inline, and nothing else.
//
//   floor LIBRARY REPOSITORY PORT
//
// One thread, one epoll, no validation, no statistics, no queue. It answers POST /v2/models/{small,large}/infer (binary
// and JSON) and GET /v2/models/small/ready, and closes whatever else connects. What a real server costs above it is the
// price of being one.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ort.hpp"

namespace {

using std::string_view;

constexpr size_t kHeadBytes = 8192, kAlignment = 64;

struct Served {
  string_view name;
  std::vector<int64_t> shape;
  std::unique_ptr<ort::Model> model;
};

/// Bytes whose part after `lead` is 64-byte aligned, kept from one request to the next.
class Buffer {
 public:
  ~Buffer() { std::free(memory_); }
  char* reserve(size_t lead, size_t byte_size) {
    size_t pad = (kAlignment - lead % kAlignment) % kAlignment;
    size_t wanted = (pad + byte_size + kAlignment - 1) / kAlignment * kAlignment;
    if (wanted > capacity_) {
      std::free(memory_);
      memory_ = static_cast<char*>(std::aligned_alloc(kAlignment, wanted));
      capacity_ = wanted;
    }
    return memory_ + pad;
  }

 private:
  char* memory_ = nullptr;
  size_t capacity_ = 0;
};

struct Head {
  const Served* served = nullptr;  // none: a readiness question
  size_t body_byte_size = 0;
  size_t json_byte_size = 0;
  bool binary = false;
};

/// The value of a header, found without regard to case; 0 when absent.
size_t header_number(string_view head, string_view name, bool* present = nullptr) {
  auto same = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; };
  auto at = std::search(head.begin(), head.end(), name.begin(), name.end(), same);
  if (present) *present = at != head.end();
  if (at == head.end()) return 0;
  const char* number = &*at + name.size();
  while (*number == ' ') number++;
  size_t value = 0;
  std::from_chars(number, head.data() + head.size(), value);
  return value;
}

bool parse_head(string_view text, const std::vector<Served>& models, Head* head) {
  constexpr string_view ready = "GET /v2/models/small/ready ", post = "POST /v2/models/", tail = "/infer ";
  if (text.substr(0, ready.size()) == ready) return true;
  if (text.substr(0, post.size()) != post) return false;
  string_view rest = text.substr(post.size());
  for (const Served& served : models)
    if (rest.substr(0, served.name.size()) == served.name && rest.substr(served.name.size(), tail.size()) == tail)
      head->served = &served;
  // The leading newline keeps the first from matching inside the second.
  head->body_byte_size = header_number(text, "\ncontent-length:");
  head->json_byte_size = header_number(text, "\ninference-header-content-length:", &head->binary);
  return head->served && head->json_byte_size <= head->body_byte_size;
}

/// Reads the numbers of the first `"data":[…]` into `to`; false unless there are `count` of them.
bool parse_numbers(string_view body, float* to, size_t count) {
  size_t at = body.find("\"data\":[");
  if (at == string_view::npos) return false;
  const char* text = body.data() + at + 8;
  const char* end = body.data() + body.size();
  for (size_t i = 0; i < count; i++) {
    auto [next, error] = std::from_chars(text, end, to[i]);
    if (error != std::errc() || next == end) return false;
    text = next + 1;
  }
  return text[-1] == ']';
}

void write_numbers(const float* from, size_t count, std::string* to) {
  constexpr size_t longest = 16;
  size_t used = to->size();
  to->resize(used + count * longest);
  char* text = to->data() + used;
  for (size_t i = 0; i < count; i++) {
    text = std::to_chars(text, text + longest, from[i]).ptr;
    *text++ = ',';
  }
  to->resize(static_cast<size_t>(text - 1 - to->data()));
}

std::string tensor_json(const Served& served) {
  std::string text = R"({"model_name":")";
  text.append(served.name).append(R"(","model_version":"1","outputs":[{"name":"output","datatype":"FP32","shape":[)");
  for (int64_t length : served.shape) text.append(std::to_string(length)).append(1, ',');
  text.back() = ']';
  return text;
}

class Connection {
 public:
  explicit Connection(int socket) : socket_(socket) {}
  ~Connection() {
    finish_answer();
    close(socket_);
  }

  /// Reads what has come and answers a request that is complete; false when the connection is to be closed.
  bool read(const std::vector<Served>& models) {
    if (!in_body_ && !read_head(models)) return false;
    if (!in_body_) return true;
    while (body_used_ < head_.body_byte_size) {
      ssize_t got = recv(socket_, body_ + body_used_, head_.body_byte_size - body_used_, 0);
      if (got < 0) return errno == EAGAIN;
      if (got == 0) return false;
      body_used_ += static_cast<size_t>(got);
    }
    in_body_ = false;
    return answer() && write();
  }

  /// Writes what is left of the answer; false when the connection is to be closed.
  bool write() {
    while (parts_[0].iov_len + parts_[1].iov_len > 0) {
      ssize_t put = writev(socket_, parts_, 2);
      if (put < 0) return errno == EAGAIN;
      for (iovec& part : parts_) {
        size_t done = std::min(part.iov_len, static_cast<size_t>(put));
        part.iov_base = static_cast<char*>(part.iov_base) + done;
        part.iov_len -= done;
        put -= static_cast<ssize_t>(done);
      }
    }
    finish_answer();
    return true;
  }

  bool writing() const { return parts_[0].iov_len + parts_[1].iov_len > 0; }
  int socket() const { return socket_; }

 private:
  bool read_head(const std::vector<Served>& models) {
    ssize_t got = recv(socket_, text_ + text_used_, kHeadBytes - text_used_, 0);
    if (got < 0) return errno == EAGAIN;
    if (got == 0) return false;
    text_used_ += static_cast<size_t>(got);
    string_view text(text_, text_used_);
    size_t end = text.find("\r\n\r\n");
    if (end == string_view::npos) return text_used_ < kHeadBytes;

    head_ = Head();
    if (!parse_head(text.substr(0, end + 2), models, &head_)) return false;
    string_view rest = text.substr(end + 4);
    if (rest.size() > head_.body_byte_size) return false;
    body_ = buffer_.reserve(head_.json_byte_size, head_.body_byte_size + 1);
    std::memcpy(body_, rest.data(), rest.size());
    body_used_ = rest.size();
    text_used_ = 0;
    in_body_ = true;
    return true;
  }

  bool answer() {
    if (!head_.served) {
      send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", nullptr, 0);
      return true;
    }
    const Served& served = *head_.served;
    size_t count = 1;
    for (int64_t length : served.shape) count *= static_cast<size_t>(length);
    float* input = reinterpret_cast<float*>(body_ + head_.json_byte_size);
    if (head_.binary) {
      if (head_.body_byte_size - head_.json_byte_size != count * sizeof(float)) return false;
    } else {
      numbers_.resize(count);
      if (!parse_numbers(string_view(body_, head_.body_byte_size), numbers_.data(), count)) return false;
      input = numbers_.data();
    }
    output_ = served.model->run(input, served.shape.data(), served.shape.size());
    output_of_ = served.model.get();
    if (head_.binary)
      answer_binary(served);
    else
      answer_json(served);
    return true;
  }

  void answer_binary(const Served& served) {
    size_t byte_size = output_of_->element_count(output_) * sizeof(float);
    std::string size = std::to_string(byte_size);
    std::string json = tensor_json(served) + R"(,"parameters":{"binary_data_size":)" + size + "}}]}";
    std::string lengths = "Inference-Header-Content-Length: " + std::to_string(json.size()) +
                          "\r\nContent-Length: " + std::to_string(json.size() + byte_size);
    send("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n" + lengths + "\r\n\r\n" + json,
         output_of_->data(output_), byte_size);
  }

  void answer_json(const Served& served) {
    json_ = tensor_json(served) + R"(,"data":[)";
    write_numbers(output_of_->data(output_), output_of_->element_count(output_), &json_);
    json_ += "]}]}";
    std::string length = std::to_string(json_.size());
    send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + length + "\r\n\r\n", json_.data(),
         json_.size());
  }

  void send(std::string head, void* body, size_t byte_size) {
    answer_head_ = std::move(head);
    parts_[0] = {answer_head_.data(), answer_head_.size()};
    parts_[1] = {body, byte_size};
  }

  void finish_answer() {
    if (output_) output_of_->release(output_);
    output_ = nullptr;
  }

  int socket_;
  char text_[kHeadBytes];
  size_t text_used_ = 0;
  bool in_body_ = false;
  Head head_;
  Buffer buffer_;
  char* body_ = nullptr;
  size_t body_used_ = 0;
  std::vector<float> numbers_;
  std::string answer_head_, json_;
  iovec parts_[2] = {};
  ort::Value* output_ = nullptr;
  const ort::Model* output_of_ = nullptr;
};

int listen_on(uint16_t port) {
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address)) ort::fail(strerror(errno));
  if (listen(listener, 1024)) ort::fail(strerror(errno));
  return listener;
}

void watch(int poll, int operation, int socket, uint32_t events, Connection* connection) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = connection;
  if (epoll_ctl(poll, operation, socket, &event)) ort::fail(strerror(errno));
}

void accept_all(int poll, int listener) {
  int socket, yes = 1;
  while ((socket = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK)) >= 0) {
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    watch(poll, EPOLL_CTL_ADD, socket, EPOLLIN, new Connection(socket));
  }
}

void step(int poll, Connection* connection, const std::vector<Served>& models) {
  bool was_writing = connection->writing();
  if (!(was_writing ? connection->write() : connection->read(models))) {
    delete connection;
    return;
  }
  if (connection->writing() != was_writing)
    watch(poll, EPOLL_CTL_MOD, connection->socket(), was_writing ? EPOLLIN : EPOLLOUT, connection);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) ort::fail("usage: floor LIBRARY REPOSITORY PORT");
  std::signal(SIGPIPE, SIG_IGN);
  ort::Api api = ort::open(argv[1]);
  std::vector<Served> models;
  models.push_back({"small", {1, 16}, nullptr});
  models.push_back({"large", {1, 3, 224, 224}, nullptr});
  for (Served& served : models) {
    std::string path = std::string(argv[2]) + "/" + std::string(served.name) + "/1/model.onnx";
    served.model = std::make_unique<ort::Model>(api, path.c_str());
  }

  int poll = epoll_create1(0), listener = listen_on(static_cast<uint16_t>(std::atoi(argv[3])));
  watch(poll, EPOLL_CTL_ADD, listener, EPOLLIN, nullptr);
  epoll_event events[256];
  for (;;) {
    int count = epoll_wait(poll, events, 256, -1);
    for (int i = 0; i < count; i++) {
      auto* connection = static_cast<Connection*>(events[i].data.ptr);
      if (connection)
        step(poll, connection, models);
      else
        accept_all(poll, listener);
    }
  }
}
