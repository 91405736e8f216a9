package resize

var fastest = portable
