//! Compressed runs of one series: float and native-histogram codecs.
