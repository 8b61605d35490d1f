// What C++20 added to the language.
#include <compare>
#include <coroutine>

template <class T>
concept Number = requires(T a, T b) {
    { a + b };
    { a < b };
};

struct Version {
    int major, minor;
    auto operator<=>(const Version &) const = default;
};

template <Number T> constexpr T clamp(T low, T value, T high) {
    return value < low ? low : high < value ? high : value;
}

consteval int cube(int x) { return x * x * x; }

struct Generator {
    struct promise_type {
        int current = 0;
        Generator get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() noexcept { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        std::suspend_always yield_value(int value) { current = value; return {}; }
        void return_void() {}
        void unhandled_exception() {}
    };
    std::coroutine_handle<promise_type> handle;
};

Generator count(int to) {
    for (int i = 0; i < to; i++) co_yield clamp(3, i, cube(2));
}
bool newer(Version a, Version b) { return a > b || (a <=> b) == 0; }
