//! The CUDA libraries, loaded when a device is first asked for, so that the program starts where there are none.
//!
//! candle links against them, and the system's loader refuses a program before `main` where a linked library is
//! missing. So every CUDA function that is called is defined here, as a jump to an address that is looked up in its
//! library at run time, and the linker finds nothing to take from a library. Until then, and where one is missing, each
//! function answers with an error. A function that is called and stands in no list below makes its library necessary at
//! the start again; linked against empty stand-ins of the libraries, the program is refused with the function's name.

use std::arch::global_asm;
use std::ffi::{CStr, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Whether a library is loaded.
#[derive(PartialEq)]
enum Load {
    /// No device opens without it.
    Always,
    IfThere,
    Never,
}

struct Library {
    name: &'static str,
    load: Load,
    /// What its file may be called, the name to prefer first.
    files: &'static [&'static CStr],
    /// The functions that are called; each name ends in a zero.
    functions: &'static [&'static str],
}

macro_rules! libraries {
    ($({ $name:literal, $error:literal, $load:expr, [$($file:literal),*], $($function:ident)* })*) => {
        const LIBRARIES: &[Library] = &[$(Library {
            name: $name,
            load: $load,
            files: &[$($file),*],
            functions: &[$(concat!(stringify!($function), "\0")),*],
        }),*];

        // The addresses, one after another, and under each function's name a jump to its own. The names are hidden: the
        // libraries themselves must not find them here.
        global_asm!(
            ".pushsection .data.cuda_addresses, \"aw\", @progbits",
            ".balign 8",
            ".globl boxwright_cuda_addresses",
            ".hidden boxwright_cuda_addresses",
            "boxwright_cuda_addresses:",
            $($(concat!(".Lcuda_", stringify!($function), ": .quad .Lcuda_error_", stringify!($error)),)*)*
            ".popsection",
            ".pushsection .text.cuda_jumps, \"ax\", @progbits",
            // What a function answers whose library is not loaded, or lacks it: an error that the library has too.
            $(concat!(".ifndef .Lcuda_error_", stringify!($error)),
            concat!(".Lcuda_error_", stringify!($error), ": mov eax, ", stringify!($error)),
            "ret",
            ".endif",)*
            $($(
                concat!(".globl ", stringify!($function)),
                concat!(".hidden ", stringify!($function)),
                concat!(".type ", stringify!($function), ", @function"),
                concat!(stringify!($function), ": jmp qword ptr [rip + .Lcuda_", stringify!($function), "]"),
            )*)*
            ".popsection",
        );
    };
}

libraries! {
    { "the NVIDIA driver", 3, Load::Always, [c"libcuda.so.1", c"libcuda.so"],
        cuCtxCreate_v3 cuCtxCreate_v4 cuCtxDestroy_v2 cuCtxGetCacheConfig cuCtxGetCurrent cuCtxGetLimit
        cuCtxGetStreamPriorityRange cuCtxSetCacheConfig cuCtxSetCurrent cuCtxSetFlags cuCtxSetLimit
        cuCtxSynchronize cuDestroyExternalMemory cuDeviceGet cuDeviceGetAttribute cuDeviceGetCount
        cuDeviceGetDefaultMemPool cuDeviceGetMemPool cuDeviceGetName cuDeviceGetUuid cuDeviceGetUuid_v2
        cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxRetain cuDeviceSetMemPool cuDeviceTotalMem_v2
        cuEventCreate cuEventDestroy_v2 cuEventElapsedTime cuEventElapsedTime_v2 cuEventQuery cuEventRecord
        cuEventSynchronize cuExternalMemoryGetMappedBuffer cuFuncGetAttribute cuFuncSetAttribute
        cuFuncSetCacheConfig cuGetErrorName cuGetErrorString cuGraphClone cuGraphDestroy cuGraphExecDestroy
        cuGraphInstantiateWithFlags cuGraphLaunch cuGraphUpload cuImportExternalMemory cuInit
        cuLaunchCooperativeKernel cuLaunchHostFunc cuLaunchKernel cuMemAdvise_v2 cuMemAllocAsync
        cuMemAllocFromPoolAsync cuMemAllocManaged cuMemAlloc_v2 cuMemFreeAsync cuMemFreeHost cuMemFree_v2
        cuMemGetInfo_v2 cuMemHostAlloc cuMemPoolCreate cuMemPoolDestroy cuMemPoolGetAttribute
        cuMemPoolSetAttribute cuMemPoolTrimTo cuMemPrefetchAsync_v2 cuMemcpyDtoDAsync_v2 cuMemcpyDtoD_v2
        cuMemcpyDtoHAsync_v2 cuMemcpyDtoH_v2 cuMemcpyHtoDAsync_v2 cuMemcpyHtoD_v2 cuMemcpyPeerAsync
        cuMemsetD8Async cuMemsetD8_v2 cuModuleGetFunction cuModuleGetGlobal_v2 cuModuleLoad cuModuleLoadData
        cuModuleUnload cuOccupancyAvailableDynamicSMemPerBlock cuOccupancyMaxActiveBlocksPerMultiprocessor
        cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags cuOccupancyMaxActiveClusters
        cuOccupancyMaxPotentialBlockSize cuOccupancyMaxPotentialBlockSizeWithFlags
        cuOccupancyMaxPotentialClusterSize cuProfilerStart cuProfilerStop cuStreamAttachMemAsync
        cuStreamBeginCapture_v2 cuStreamCreate cuStreamCreateWithPriority cuStreamDestroy_v2 cuStreamEndCapture
        cuStreamIsCapturing cuStreamSynchronize cuStreamWaitEvent
    }
    { "cuBLAS", 1, Load::Always, [c"libcublas.so.13", c"libcublas.so.12", c"libcublas.so"],
        cublasCreate_v2 cublasDasum_v2 cublasDestroy_v2 cublasDgemmStridedBatched cublasDgemm_v2 cublasDgemv_v2
        cublasGemmEx cublasGemmGroupedBatchedEx cublasGemmStridedBatchedEx cublasGetPointerMode_v2
        cublasSasum_v2 cublasSetPointerMode_v2 cublasSetStream_v2 cublasSgemmStridedBatched cublasSgemm_v2
        cublasSgemv_v2
    }
    { "cuRAND", 101, Load::Always, [c"libcurand.so.10", c"libcurand.so"],
        curandCreateGenerator curandDestroyGenerator curandGenerate curandGenerateLogNormal
        curandGenerateLogNormalDouble curandGenerateLongLong curandGenerateNormal curandGenerateNormalDouble
        curandGeneratePoisson curandGenerateUniform curandGenerateUniformDouble curandSetGeneratorOffset
        curandSetPseudoRandomGeneratorSeed curandSetStream
    }
    { "NVRTC", 11, Load::Always, [c"libnvrtc.so.13", c"libnvrtc.so.12", c"libnvrtc.so"],
        nvrtcCompileProgram nvrtcCreateProgram nvrtcDestroyProgram nvrtcGetPTX nvrtcGetPTXSize
        nvrtcGetProgramLog nvrtcGetProgramLogSize
    }
    { "cuDNN", 1001, if cfg!(feature = "cudnn") { Load::Always } else { Load::Never }, [c"libcudnn.so.9", c"libcudnn.so"],
        cudnnActivationForward cudnnAdvInferVersionCheck cudnnAdvTrainVersionCheck cudnnAdvVersionCheck
        cudnnCnnInferVersionCheck cudnnCnnTrainVersionCheck cudnnCnnVersionCheck cudnnConvolutionBackwardData
        cudnnConvolutionBackwardFilter cudnnConvolutionBiasActivationForward cudnnConvolutionForward cudnnCreate
        cudnnCreateActivationDescriptor cudnnCreateConvolutionDescriptor cudnnCreateFilterDescriptor
        cudnnCreatePoolingDescriptor cudnnCreateReduceTensorDescriptor cudnnCreateTensorDescriptor cudnnDestroy
        cudnnDestroyConvolutionDescriptor cudnnDestroyFilterDescriptor cudnnDestroyReduceTensorDescriptor
        cudnnDestroyTensorDescriptor cudnnGetConvolutionBackwardDataAlgorithm_v7
        cudnnGetConvolutionBackwardDataWorkspaceSize cudnnGetConvolutionBackwardFilterAlgorithm_v7
        cudnnGetConvolutionBackwardFilterWorkspaceSize cudnnGetConvolutionForwardAlgorithm_v7
        cudnnGetConvolutionForwardWorkspaceSize cudnnGetCudartVersion cudnnGetReductionIndicesSize
        cudnnGetReductionWorkspaceSize cudnnGetVersion cudnnOpsInferVersionCheck cudnnOpsTrainVersionCheck
        cudnnOpsVersionCheck cudnnPoolingForward cudnnReduceTensor cudnnSetActivationDescriptor
        cudnnSetConvolution2dDescriptor cudnnSetConvolutionGroupCount cudnnSetConvolutionMathType
        cudnnSetConvolutionNdDescriptor cudnnSetFilter4dDescriptor cudnnSetFilterNdDescriptor
        cudnnSetPoolingNdDescriptor cudnnSetReduceTensorDescriptor cudnnSetStream cudnnSetTensor4dDescriptor
        cudnnSetTensor4dDescriptorEx cudnnSetTensorNdDescriptor cudnnSoftmaxForward
    }
    { "NCCL", 3, if cfg!(feature = "nccl") { Load::IfThere } else { Load::Never }, [c"libnccl.so.2", c"libnccl.so"],
        ncclAllGather ncclAllReduce ncclBroadcast ncclCommAbort ncclCommCount ncclCommCuDevice ncclCommDestroy
        ncclCommFinalize ncclCommInitAll ncclCommInitRank ncclCommInitRankConfig ncclCommSplit ncclCommUserRank
        ncclGetUniqueId ncclGetVersion ncclGroupEnd ncclGroupStart ncclRecv ncclRedOpCreatePreMulSum
        ncclRedOpDestroy ncclReduce ncclReduceScatter ncclSend
    }
    // candle's kernels for quantised tensors register themselves with it before `main`; nothing here runs them.
    { "the CUDA runtime", 3, Load::Never, [],
        __cudaGetKernel __cudaInitModule __cudaLaunchKernel __cudaLaunchKernel_ptsz __cudaPopCallConfiguration
        __cudaPushCallConfiguration __cudaRegisterFatBinary __cudaRegisterFatBinaryEnd __cudaRegisterFunction
        __cudaRegisterVar __cudaUnregisterFatBinary cudaDeviceGetAttribute cudaFree cudaFreeAsync
        cudaFreeAsync_ptsz cudaFuncGetAttributes cudaFuncSetAttribute cudaGetDevice cudaGetDeviceCount
        cudaGetErrorName cudaGetErrorString cudaGetLastError cudaLaunchKernel cudaMalloc cudaMallocAsync
        cudaMallocAsync_ptsz cudaMemsetAsync cudaMemsetAsync_ptsz
        cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags cudaPeekAtLastError cudaSetDevice
        cudaStreamSynchronize_ptsz
    }
}

/// Functions in all libraries.
const FUNCTIONS: usize = {
    let (mut count, mut library) = (0, 0);
    while library < LIBRARIES.len() {
        count += LIBRARIES[library].functions.len();
        library += 1;
    }
    count
};

unsafe extern "C" {
    /// Where each function is, in the order of [`LIBRARIES`].
    #[link_name = "boxwright_cuda_addresses"]
    safe static ADDRESSES: [AtomicPtr<c_void>; FUNCTIONS];
}

/// Loads the libraries at the first call; later ones have the same answer: those that cannot be loaded, by their file
/// and by what they are.
pub fn load() -> &'static [String] {
    static MISSING: OnceLock<Vec<String>> = OnceLock::new();
    MISSING.get_or_init(|| {
        let mut missing = Vec::new();
        let mut addresses = ADDRESSES.as_slice();
        for library in LIBRARIES {
            let (own, others) = addresses.split_at(library.functions.len());
            addresses = others;
            let found = library.load != Load::Never && filled(library, own);
            if !found && library.load == Load::Always {
                let file = library.files.first().map_or("".into(), |file| file.to_string_lossy());
                missing.push(format!("{file} ({})", library.name));
            }
        }
        missing
    })
}

/// Loads one library and looks up its functions; false where there is no such library.
fn filled(library: &Library, addresses: &[AtomicPtr<c_void>]) -> bool {
    // SAFETY: the names end in a zero, and starting NVIDIA's libraries asks nothing of this program.
    let mut handles = library.files.iter().map(|file| unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_LAZY) });
    let Some(handle) = handles.find(|handle| !handle.is_null()) else { return false };
    for (entry, function) in addresses.iter().zip(library.functions) {
        // SAFETY: the handle was just opened and is never closed; the name ends in a zero.
        let address = unsafe { libc::dlsym(handle, function.as_ptr().cast()) };
        // An older library may lack a function that is not called with it.
        if !address.is_null() {
            entry.store(address, Ordering::Release);
        }
    }
    true
}
