using BenchmarkDotNet.Running;
using Engine.Bench;

// What is measured here, with results: bench/README.md.
switch (args.FirstOrDefault())
{
    case "matmul":
        MatmulBench.Run(args[1..]);
        return 0;
    case "formats":
        FormatBench.Run(args[1..]);
        return 0;
    case "sparse":
        SparseBench.Run(args[1..]);
        return 0;
    case "open":
        OpenBench.Run(args[1..]);
        return 0;
    case "peers":
        return Peers.Run(args[1..]);
    case "micro":
        BenchmarkSwitcher.FromAssembly(typeof(Peers).Assembly).Run(args[1..]);
        return 0;
    default:
        Console.Error.WriteLine("""
            matmul [formats] [threads] [instruction set] [BFloat16] [batches]
                                                           rates of matrix products per format, beside the read bandwidth
            formats [formats] [threads]                    what one token reads of each format a second, beside the read bandwidth
            peers --host … --peer … --model …              this engine and llama.cpp or ik_llama.cpp, same files, in turn
            sparse [threads] [formats] [BFloat16]          weights with zeros, 2:4 or anywhere, beside none, in turn
            open FILE …                                    how long opening a checkpoint takes
            micro [--filter *]                             samplers, with BenchmarkDotNet
            """);
        return 2;
}
