// The standard library, as most C++ programs drag it in.
#include <algorithm>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

struct Record {
    std::string name;
    std::vector<double> values;
    bool operator<(const Record &other) const { return name < other.name; }
};

std::map<std::string, std::unique_ptr<Record>> parse(const std::string &text) {
    std::map<std::string, std::unique_ptr<Record>> found;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        auto record = std::make_unique<Record>();
        words >> record->name;
        for (double value; words >> value;) record->values.push_back(value * 1.1);
        std::sort(record->values.begin(), record->values.end(), [](double a, double b) { return a > b; });
        found[record->name] = std::move(record);
    }
    if (found.empty()) throw std::runtime_error("nothing in " + std::to_string(text.size()));
    return found;
}
