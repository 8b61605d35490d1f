// Templates, overloads, constant expressions and lambdas, without any library.
namespace corpus {
template <class T, unsigned N> struct Array {
    T items[N];
    constexpr T &operator[](unsigned i) { return items[i]; }
    constexpr const T &operator[](unsigned i) const { return items[i]; }
    constexpr const T *begin() const { return items; }
    constexpr const T *end() const { return items + N; }
    static constexpr unsigned size = N;
};
template <unsigned N> struct Fibonacci {
    static constexpr unsigned long value = Fibonacci<N - 1>::value + Fibonacci<N - 2>::value;
};
template <> struct Fibonacci<0> { static constexpr unsigned long value = 0; };
template <> struct Fibonacci<1> { static constexpr unsigned long value = 1; };

template <class... T> struct Tuple;
template <> struct Tuple<> {};
template <class H, class... T> struct Tuple<H, T...> : Tuple<T...> {
    H head;
    constexpr Tuple(H h, T... t) : Tuple<T...>(t...), head(h) {}
};
template <class... T> Tuple(T...) -> Tuple<T...>;

template <class F, class... A> auto apply(F f, A... a) -> decltype(f(a...)) { return f(a...); }
template <class... A> constexpr auto total(A... a) { return (a + ... + 0); }

constexpr auto squares = [] {
    Array<int, 16> made{};
    for (int i = 0; i < 16; i++) made[i] = i * i;
    return made;
}();

template <class T> T largest(const T *from, const T *to) {
    T best = *from;
    for (; from != to; ++from) if (best < *from) best = *from;
    return best;
}
template int largest<int>(const int *, const int *);
template double largest<double>(const double *, const double *);
inline namespace v2 { int versioned(Tuple<int, char, double> t) { return t.head; } }

enum class Level : unsigned char { low, high = 200 };
constexpr Level operator|(Level a, Level b) { return Level(unsigned(a) | unsigned(b)); }

int use(int by) {
    auto scale = [by, count = 0](int x) mutable { return x * by + ++count; };
    int result = total(1, 2, 3) + versioned(Tuple{1, 'x', 2.5}) + int(Level::low | Level::high);
    for (int s : squares) result += apply(scale, s);
    if constexpr (Fibonacci<40>::value > 1000) result += int(Fibonacci<40>::value % 1000);
    return result + largest(squares.begin(), squares.end());
}
}  // namespace corpus
