// Package sim is a simulated Hailo-10H: a worker process that speaks the protocol of package
// wire and behaves as the chip does, without one.
//
// One device is shared by the image and the text model. It runs min(waiting, batch) frames of
// one model at a time, which takes a + b*n; the model with the higher priority goes first,
// models of equal priority take turns; a threshold and a timeout make a model wait for more
// frames. Defaults fit the vendor's figures for clip_vit_b_32: images 12.5 ms + 1.42 ms, texts
// 11.5 ms + 8.7 ms, so 71.8 and 335 images/s, 49.5 and 99 texts/s, at batch 1 and 8.
//
// The output depends on the bytes of the input only ([Vector]), so equal input gives equal
// output on every run and machine, and an answer that belongs to another request shows. With
// real encoders given ([Encoders]) the output is theirs.
//
// It fails on command, see [Faults].
package sim
